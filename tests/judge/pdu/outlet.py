"""A variation module for snmpsim: an outlet that gives a board its current, as strict as a PDU is.

A record `OID|2:outlet|board=a,on=1,off=2,use=both` is read and written; with `use=state` it can only be read, with
`use=control` a read says -1. `wait=SECONDS` answers late. What is written takes effect PDU_DELAY seconds later, as
relays do, and the first PDU_BUSY writes find the PDU busy.
"""

import os
import subprocess
import threading
import time

from pysnmp.smi import error
from snmpsim.grammar.snmprec import SnmprecGrammar

LAB = os.environ["PDU_LAB"]
BOARDS = os.environ["PDU_BOARDS"]
DELAY = float(os.environ.get("PDU_DELAY", "0"))
BUSY = {"left": int(os.environ.get("PDU_BUSY", "0"))}
INTEGER = SnmprecGrammar.tagMap["2"]


def board(name, *words):
    done = subprocess.run(
        [LAB, "bmc", os.path.join(BOARDS, name), *words], stdout=subprocess.PIPE, check=True
    )
    return done.stdout.decode().strip()


def init(**context):
    pass


def shutdown(**context):
    pass


def variate(oid, tag, value, **context):
    if context["nextFlag"] or not context["exactMatch"]:
        return context["origOid"], tag, context["errorStatus"]
    settings = dict(part.split("=") for part in value.split(","))
    time.sleep(float(settings.get("wait", "0")))
    if not context["setFlag"]:
        if settings["use"] == "control":
            return oid, tag, INTEGER(-1)
        is_on = board(settings["board"], "get", "power") == "power:1"
        return oid, tag, INTEGER(int(settings["on" if is_on else "off"]))

    place = {"name": oid, "idx": max(0, context["varsTotal"] - context["varsRemaining"] - 1)}
    asked = context["origValue"]
    if settings["use"] == "state":
        raise error.NotWritableError(**place)
    if not INTEGER().isSameTypeWith(asked):
        raise error.WrongTypeError(**place)
    powers = {settings[word]: power for word, power in (("on", "1"), ("off", "0")) if word in settings}
    if str(int(asked)) not in powers:
        raise error.WrongValueError(**place)
    if BUSY["left"] > 0:
        BUSY["left"] -= 1
        raise error.ResourceUnavailableError(**place)
    words = (settings["board"], "set", "power", powers[str(int(asked))])
    threading.Timer(DELAY, board, words).start()
    return oid, tag, asked
