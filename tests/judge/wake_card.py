"""A sleeping network card: it wakes at its own magic packet and at nothing else.

    wake_card.py INTERFACE MAC SECRET COMMAND...

SECRET is a SecureOn password, or "-" for none; COMMAND is run at each packet that wakes. Prints `ready`, and for each
magic packet `woken` or `ignored`.
"""

import socket
import subprocess
import sys

EVERY_PROTOCOL = 0x0003
HEADER_BYTES = 14
SYNC = b"\xff" * 6


def octets(text):
    return bytes(int(part, 16) for part in text.split(":"))


def magic(frame):
    """The address sixteen times after a synchronisation, and what follows; None when there is none."""
    at = frame.find(SYNC, HEADER_BYTES)
    while at >= 0:
        address = frame[at + 6 : at + 12]
        if len(address) == 6 and frame[at + 6 : at + 102] == address * 16:
            return address, frame[at + 102 :]
        at = frame.find(SYNC, at + 1)
    return None


def main(interface, mac, secret, *command):
    mac, secret = octets(mac), b"" if secret == "-" else octets(secret)
    wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(EVERY_PROTOCOL))
    wire.bind((interface, 0))
    print("ready", flush=True)
    while True:
        frame = wire.recv(65535)
        # A card hears what is for itself and what is for many.
        for_many = frame[0] & 1
        found = magic(frame) if for_many or frame[:6] == mac else None
        if found is None:
            continue
        address, rest = found
        woken = address == mac and rest.startswith(secret)
        print("woken" if woken else "ignored", flush=True)
        if woken:
            subprocess.run(command, check=True)


main(*sys.argv[1:])
