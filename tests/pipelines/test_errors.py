"""Errors that cross processes keep their class, their message and their advice."""

import pickle

from diffpriv.keys.errors import RecoveryRefusedError, StorageError, WrongRecipientError
from diffpriv.pipelines.errors import JobError, MisuseError
from diffpriv.pipelines.records.arrow import from_table, to_table
from diffpriv.pipelines.records.samples import Stop


def test_an_error_of_a_worker_is_raised_in_the_driver_as_what_it_was() -> None:
    for error in (StorageError("full", advice="Make room."), MisuseError("no"), WrongRecipientError("other", advice="Ask.")):
        (stop,) = from_table(to_table([Stop.because_of(error)]))
        assert isinstance(stop, Stop)
        raised = stop.error
        assert (type(raised), raised.message, raised.advice) == (type(error), error.message, error.advice)
        assert str(pickle.loads(pickle.dumps(raised))) == str(error)


def test_an_error_that_a_message_alone_does_not_make_is_the_jobs() -> None:
    stop = Stop.because_of(RecoveryRefusedError("refused", reason="quorum", advice="Ask for another approval."))
    assert type(stop.error) is JobError
    assert str(stop.error) == "refused Ask for another approval."
