"""`diffpriv desk`: start it, open the browser, stop with Ctrl-C."""

from pathlib import Path
from typing import Annotated

import typer

from diffpriv.jobs.output import OUTPUT
from diffpriv.keys.errors import MisuseError


def desk(
    policy: Annotated[Path | None, typer.Option(help="Custody policy: who may ask, who approves.")] = None,
    data: Annotated[str | None, typer.Option(help="The published DST: its faces are shown, and can be asked for.")] = None,
    keys: Annotated[str | None, typer.Option(help="Key store, to recover and to verify.")] = None,
    audit: Annotated[str | None, typer.Option(help="Audit log.")] = None,
    log_vkey: Annotated[Path | None, typer.Option(help="The log's public key: what the log says is shown.")] = None,
    log_key: Annotated[
        Path | None, typer.Option(help="Key that signs the log: what is signed is entered; without it files are mailed.")
    ] = None,
    office_key: Annotated[Path | None, typer.Option(help="Key that signs receipts, to recover.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for recovered pictures.")] = None,
    model: Annotated[str, typer.Option(help="The model that protected the faces.")] = "builtin",
    witness_memory: Annotated[
        Path | None, typer.Option(help="A witness's own file of what it cosigned last, to cosign. Never in the log's folder.")
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0 takes a free one.")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """Ask for faces, approve, deny and audit in the browser, on this machine alone. Opens no key by itself."""
    import webbrowser

    from diffpriv.jobs.desk.pages import Desk
    from diffpriv.jobs.desk.server import DeskServer
    from diffpriv.jobs.desk.steps import Places

    places = Places(policy, data, keys, audit, log_vkey, log_key, office_key, out, model, witness_memory)
    try:
        server = DeskServer(Desk(places), port)
    except OSError as error:
        raise MisuseError(f"port {port} can't be used: {error.strerror or error}.", advice="Give another --port.") from error
    with server:
        OUTPUT.result({"url": server.url}, lambda console: console.print(f"The desk is at {server.url}", markup=False))
        OUTPUT.note("The address works once, in one browser. Ctrl-C ends the desk; it keeps nothing.")
        if browser:
            webbrowser.open(server.url)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            OUTPUT.note("The desk is closed.")
