"""The custodian's desk: a local web page for the people who ask for faces, approve, deny and audit, and never open a terminal.

    server.py    who may talk to it: loopback, one token, one origin, small bodies; nothing it says is cached or scripted
    forms.py     a posted form, bounded
    pages.py     address and form -> page; each is a call of the functions behind the commands
    steps.py     those calls
    texts.py     German and English, from messages.json
It holds no case, no key and no passphrase between two requests: a case travels in the form, keys are opened for one signature.
"""
