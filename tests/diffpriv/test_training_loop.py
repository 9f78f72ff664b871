import torch

from diffpriv.training.loop import TrainingRun


def one_part(folder, seconds, seed=3):
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    run = TrainingRun(folder / "checkpoint.pt", {"model": model}, optimizer, minutes=seconds / 60, decay=0.9, seed=seed)
    drawn = {}
    for step in run.steps():
        batch = torch.randn(16, 4, generator=step.generator)
        drawn[step.index] = batch
        run.descend((model(batch) - batch.sum(1, keepdim=True)).square().mean())
    return run, model, drawn


def test_a_resumed_run_goes_on_where_it_was_cut_with_the_numbers_it_would_have_drawn(tmp_path):
    first, before, _ = one_part(tmp_path, 0.05)
    assert first.step > 1
    second, after, drawn = one_part(tmp_path, 0.1)
    assert min(drawn) == first.step
    assert second.step == max(drawn) + 1
    expected = torch.Generator().manual_seed(3 * 1_000_003 + first.step)
    assert torch.equal(drawn[first.step], torch.randn(16, 4, generator=expected))
    assert not torch.equal(before.weight, after.weight)


def test_a_spent_budget_trains_no_further_and_keeps_the_averaged_weights(tmp_path):
    first, before, _ = one_part(tmp_path, 0.05)
    again, after, drawn = one_part(tmp_path, 0.05)
    assert not drawn
    assert again.step == first.step
    assert torch.equal(before.weight, after.weight)
    assert torch.equal(first.averages["model"].values["weight"], again.averages["model"].values["weight"])
