#!/usr/bin/env python3
"""A management controller that speaks IPMI 2.0 over RMCP+, as strict as a device.

Usage: ipmi_bmc.py PORT USER PASSWORD FIRMWARE SUITE[,SUITE] LAB BOARD [BUSY]

FIRMWARE is uefi or bios: boot flags for the other one do nothing. What it
switches is asked of `LAB bmc BOARD`. BUSY answers to chassis commands are
"node busy". Every session is counted on standard output: "login", "wrong",
"closed". Sections and tables are those of the IPMI 2.0 specification.
"""
import hashlib
import hmac
import os
import socket
import struct
import subprocess
import sys

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

SESSIONS_MAX = 2
WRONG_MAX = 3
GUID = bytes(range(16))
# Cipher suites (table 22-20): authentication, integrity, confidentiality; hash; bytes of an authentication code.
SUITES = {3: ((1, 1, 1), hashlib.sha1, 12), 17: ((3, 4, 1), hashlib.sha256, 16)}
OK, BUSY, NO_COMMAND, BAD_LENGTH, BAD_FIELD, NO_PRIVILEGE, WRONG_STATE, NO_PARAMETER = (
    0x00, 0xC0, 0xC1, 0xC7, 0xCC, 0xD4, 0xD5, 0x80)
ADMINISTRATOR, OPERATOR, USER_LEVEL = 4, 3, 2


def checksum(data):
    """Two's complement of the sum (section 13.8)."""
    return -sum(data) & 0xFF


def say(word):
    """One line for whoever started this."""
    print(word, flush=True)


class Session:
    """One session, from Open Session to Close Session."""

    def __init__(self, console, own, suite):
        self.console, self.own = console, own
        self.algorithms, self.hash, self.code_bytes = SUITES[suite]
        self.level = USER_LEVEL
        self.sequence = 0
        self.seen = set()
        self.open = False

    def mac(self, key, data):
        return hmac.new(key, data, self.hash).digest()

    def begin(self, controller, message):
        """RAKP message 1: who wants in (section 13.20); the answer is RAKP message 2."""
        self.console_random, self.role = message[8:24], message[24]
        self.name = message[28:28 + message[27]]
        self.own_random = os.urandom(16)
        if self.name != controller.user or controller.wrong >= WRONG_MAX:
            controller.wrong += 1
            say("wrong")
            return bytes([message[0], 0x0D, 0, 0]) + self.console
        self.key = controller.password.ljust(20, b"\0")
        tail = bytes([self.role, len(self.name)]) + self.name
        code = self.mac(self.key, self.console + self.own + self.console_random + self.own_random + GUID + tail)
        say("login")
        return bytes([message[0], 0, 0, 0]) + self.console + self.own_random + GUID + code

    def prove(self, controller, message):
        """RAKP message 3: the proof (section 13.22); the answer is RAKP message 4."""
        tail = bytes([self.role, len(self.name)]) + self.name
        wanted = self.mac(self.key, self.own_random + self.console + tail)
        if message[1] != 0 or not hmac.compare_digest(wanted, message[8:]):
            controller.wrong += 1
            say("wrong")
            return bytes([message[0], 0x0F, 0, 0]) + self.console
        secret = self.mac(self.key, self.console_random + self.own_random + tail)
        self.integrity_key = self.mac(secret, b"\x01" * 20)
        self.secrecy_key = self.mac(secret, b"\x02" * 20)[:16]
        self.open = True
        code = self.mac(secret, self.console_random + self.own + GUID)[:self.code_bytes]
        return bytes([message[0], 0, 0, 0]) + self.console + code

    def unseal(self, packet):
        """The payload of a sealed packet, or None (sections 13.28 and 13.29)."""
        covered, code = packet[4:-self.code_bytes], packet[-self.code_bytes:]
        if not hmac.compare_digest(self.mac(self.integrity_key, covered)[:self.code_bytes], code):
            return None
        (number,) = struct.unpack("<I", packet[10:14])
        if number in self.seen or len(covered) % 4 or covered[-1] != 0x07:
            return None
        self.seen.add(number)
        (length,) = struct.unpack("<H", packet[14:16])
        sealed = packet[16:16 + length]
        aes = Cipher(algorithms.AES(self.secrecy_key), modes.CBC(sealed[:16])).decryptor()
        clear = aes.update(sealed[16:]) + aes.finalize()
        pad = clear[-1]
        if clear[-pad - 1:-1] != bytes(range(1, pad + 1)):
            return None
        return clear[:-pad - 1]

    def seal(self, payload):
        """A packet with this payload, for the console."""
        pad = -(len(payload) + 1) % 16
        clear = payload + bytes(range(1, pad + 1)) + bytes([pad])
        start = os.urandom(16)
        aes = Cipher(algorithms.AES(self.secrecy_key), modes.CBC(start)).encryptor()
        sealed = start + aes.update(clear) + aes.finalize()
        self.sequence += 1
        head = bytes([0x06, 0xC0]) + self.console + struct.pack("<IH", self.sequence, len(sealed))
        covered = head + sealed
        pad = -(len(covered) + 2) % 4
        covered += b"\xFF" * pad + bytes([pad, 0x07])
        return b"\x06\x00\xFF\x07" + covered + self.mac(self.integrity_key, covered)[:self.code_bytes]


class Controller:
    """The controller, and the board it switches."""

    def __init__(self, user, password, firmware, suites, lab, board, busy):
        self.user, self.password = user.encode(), password.encode()
        self.uefi, self.suites, self.busy = firmware == "uefi", suites, busy
        self.command = [lab, "bmc", board]
        self.sessions = {}
        self.numbers = 0x01000000
        self.wrong = 0
        self.parameters = {0: b"\0", 3: b"\0", 4: b"\0\0", 5: b"\0\0\0\0\0"}

    def board(self, *words):
        done = subprocess.run(self.command + list(words), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"the board: {done.stderr}")
        return done.stdout.strip().rpartition(":")[2]

    def answer(self, packet):
        """The answer to a datagram, or None."""
        if packet[:4] != b"\x06\x00\xFF\x07" or len(packet) < 14:
            return None
        if packet[4] == 0:
            # Without a session (section 13.6).
            return self.plain(packet[14:14 + packet[13]])
        if packet[4] != 0x06 or len(packet) < 16:
            return None
        kind, number = packet[5], packet[6:10]
        (length,) = struct.unpack("<H", packet[14:16])
        payload = packet[16:16 + length]
        if kind == 0xC0:
            session = self.sessions.get(number)
            message = session.unseal(packet) if session and session.open else None
            reply = self.message(session, message) if message else None
            return session.seal(reply) if reply else None
        if kind == 0x00:
            reply = self.message(None, payload)
            return self.wrapped(0x00, reply) if reply else None
        if kind == 0x10 and len(payload) == 32:
            return self.wrapped(0x11, self.open_session(payload))
        session = self.sessions.get(payload[4:8]) if kind in (0x12, 0x14) else None
        if session is None:
            return None
        if kind == 0x12:
            return self.wrapped(0x13, session.begin(self, payload))
        return self.wrapped(0x15, session.prove(self, payload))

    def plain(self, message):
        reply = self.message(None, message)
        if reply is None:
            return None
        return b"\x06\x00\xFF\x07" + bytes(9) + bytes([len(reply)]) + reply

    @staticmethod
    def wrapped(kind, payload):
        return b"\x06\x00\xFF\x07\x06" + bytes([kind]) + bytes(8) + struct.pack("<H", len(payload)) + payload

    def open_session(self, request):
        """Open Session (section 13.17)."""
        tag, console = request[0], request[4:8]
        asked = (request[12], request[20], request[28])
        fitting = [suite for suite in self.suites if SUITES[suite][0] == asked]
        if not fitting:
            return bytes([tag, 0x04, 0, 0]) + console
        if sum(session.open for session in self.sessions.values()) >= SESSIONS_MAX:
            return bytes([tag, 0x01, 0, 0]) + console
        self.numbers += 1
        own = struct.pack("<I", self.numbers)
        self.sessions[own] = Session(console, own, fitting[0])
        return bytes([tag, 0, ADMINISTRATOR, 0]) + console + own + request[8:]

    def message(self, session, message):
        """An IPMI message (section 13.8) and its answer."""
        if len(message) < 7 or checksum(message[:2]) != message[2] or checksum(message[3:-1]) != message[-1]:
            return None
        function, command, data = message[1] >> 2, message[5], message[6:-1]
        code, result = self.run(session, function, command, data)
        head = bytes([message[3], (function + 1) << 2])
        body = bytes([message[0], message[4], command, code]) + result
        return head + bytes([checksum(head)]) + body + bytes([checksum(body)])

    def run(self, session, function, command, data):
        if (function, command) == (0x06, 0x38):
            return OK, bytes([1, 0x80, 0x04, 0x02, 0, 0, 0, 0])
        if (function, command) == (0x06, 0x54):
            records = b""
            for suite in self.suites:
                a, i, c = SUITES[suite][0]
                records += bytes([0xC0, suite, a, 0x40 | i, 0x80 | c])
            at = 16 * (data[2] & 0x3F)
            return OK, b"\x01" + records[at:at + 16]
        if session is None:
            return NO_PRIVILEGE, b""
        if (function, command) == (0x06, 0x01):
            return OK, bytes([0x20, 1, 1, 0, 2, 0x80, 0, 0, 0, 0, 0])
        if (function, command) == (0x06, 0x3B):
            if data[0] > session.role & 0x0F:
                return 0x81, b""
            session.level = data[0] or session.level
            return OK, bytes([session.level])
        if (function, command) == (0x06, 0x3C):
            del self.sessions[data[:4]]
            say("closed")
            # The answer still goes out by the session that has ended.
            return OK, b""
        if function != 0x00:
            return NO_COMMAND, b""
        if self.busy > 0:
            self.busy -= 1
            return BUSY, b""
        if command == 0x01:
            return OK, bytes([int(self.board("get", "power")), 0, 0])
        if session.level < OPERATOR:
            return NO_PRIVILEGE, b""
        if command == 0x02:
            return self.control(data), b""
        if command == 0x08:
            return self.set_boot(data), b""
        if command == 0x09:
            return self.tell_boot(data)
        return NO_COMMAND, b""

    def control(self, data):
        """Chassis Control (section 28.3)."""
        on = self.board("get", "power") == "1"
        if data == b"\x00":
            self.board("set", "power", "0")
        elif data == b"\x01":
            self.board("set", "power", "1")
        elif data in (b"\x02", b"\x03"):
            if not on:
                return WRONG_STATE
            self.board("set", "reset", "1")
        elif data == b"\x05":
            # Nobody is there to hear it.
            return OK if on else WRONG_STATE
        else:
            return BAD_FIELD
        return OK

    def set_boot(self, data):
        """Set System Boot Options (section 28.12)."""
        number, value = data[0] & 0x7F, data[1:]
        if number not in self.parameters:
            return NO_PARAMETER
        if len(value) != len(self.parameters[number]):
            return BAD_LENGTH
        self.parameters[number] = value
        if number == 5:
            valid, uefi, device = value[0] & 0x80, bool(value[0] & 0x20), value[1] >> 2 & 0x0F
            word = {1: "pxe", 2: "default"}.get(device) if valid and uefi == self.uefi else None
            self.board("set", "boot", word or "none")
            self.armed = word is not None
        return OK

    def tell_boot(self, data):
        """Get System Boot Options (section 28.13)."""
        number = data[0] & 0x7F
        if number not in self.parameters:
            return NO_PARAMETER, b""
        if number == 5 and getattr(self, "armed", False) and self.board("get", "boot") == "none":
            # A start has used them up.
            self.parameters[5], self.armed = bytes(5), False
        return OK, bytes([1, number]) + self.parameters[number]


def main():
    port, user, password, firmware, suites, lab, board, *busy = sys.argv[1:]
    suites = [int(suite) for suite in suites.split(",")]
    controller = Controller(user, password, firmware, suites, lab, board, int(busy[0]) if busy else 0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as wire:
        wire.bind(("127.0.0.1", int(port)))
        say(f"ready {wire.getsockname()[1]}")
        while True:
            packet, console = wire.recvfrom(2048)
            reply = controller.answer(packet)
            if reply is not None:
                wire.sendto(reply, console)


main()
