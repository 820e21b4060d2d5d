#!/usr/bin/python3
"""Opens sealed datagrams from a capture by docs/PROTOCOL.md alone.

Usage: open_sealed.py CAPTURE KEY_FILE IMAGE

Shares nothing with the code it judges: BLAKE3 is written here after its paper,
for inputs of one chunk, and the ciphers are those of OpenSSL. Prints one JSON
object: announces and symbols seen, those that opened, and symbols of the
payload that are found in the image as they are.
"""

import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

IV = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
      0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19)
PERMUTATION = (2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8)
LANES = ((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15),
         (0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14))
CHUNK_START, CHUNK_END, ROOT = 1, 2, 8
DERIVE_CONTEXT, DERIVE_MATERIAL = 32, 64
MASK = 0xFFFFFFFF


def rotate(word, bits):
    return (word >> bits | word << (32 - bits)) & MASK


def compress(chaining, words, length, flags):
    state = list(chaining) + list(IV[:4]) + [0, 0, length, flags]
    for _ in range(7):
        for lane, (a, b, c, d) in enumerate(LANES):
            for word, (first, second) in ((words[2 * lane], (16, 12)),
                                          (words[2 * lane + 1], (8, 7))):
                state[a] = (state[a] + state[b] + word) & MASK
                state[d] = rotate(state[d] ^ state[a], first)
                state[c] = (state[c] + state[d]) & MASK
                state[b] = rotate(state[b] ^ state[c], second)
        words = [words[i] for i in PERMUTATION]
    return [state[i] ^ state[i + 8] for i in range(8)]


def blake3(data, key, flags):
    assert len(data) <= 1024, "one chunk"
    blocks = [data[i:i + 64] for i in range(0, len(data), 64)] or [b""]
    chaining = key
    for number, block in enumerate(blocks):
        role = flags
        role |= CHUNK_START if number == 0 else 0
        role |= CHUNK_END | ROOT if number == len(blocks) - 1 else 0
        words = struct.unpack("<16I", block.ljust(64, b"\0"))
        chaining = compress(chaining, words, len(block), role)
    return chaining


def derive_key(context, material):
    key = blake3(context.encode(), IV, DERIVE_CONTEXT)
    return struct.pack("<8I", *blake3(material, key, DERIVE_MATERIAL))


def datagrams(path):
    """UDP payloads of a capture of Ethernet frames."""
    data = open(path, "rb").read()
    order = "<" if data[:4] == b"\xd4\xc3\xb2\xa1" else ">"
    at = 24
    while at + 16 <= len(data):
        length = struct.unpack_from(order + "I", data, at + 8)[0]
        frame = data[at + 16:at + 16 + length]
        at += 16 + length
        if frame[12:14] == b"\x08\x00" and frame[23] == 17:
            yield frame[14 + (frame[14] & 15) * 4 + 8:]


def opened(cipher, number, datagram, head, end):
    nonce = bytes(8) + number
    try:
        return cipher.decrypt(nonce, datagram[head:end], datagram[:head])
    except InvalidTag:
        return None


def main(capture, key_file, image_path):
    secret, image = open(key_file, "rb").read(), open(image_path, "rb").read()
    key = derive_key("netflash 2026 session key of a shared secret", secret)
    count = dict(announces=0, announces_opened=0, symbols=0, symbols_opened=0, found=0, open=0)
    data_cipher = None
    for datagram in datagrams(capture):
        if len(datagram) < 32 or datagram[0] not in (0x11, 0x12, 0x13):
            continue
        if not datagram[1] & 0x80:
            count["open"] += 1
        elif datagram[0] == 0x12:
            suite, salt, public = datagram[46:47], datagram[47:63], datagram[14:46]
            bound = key + datagram[2:6] + suite + salt + public
            cipher = {1: AESGCM, 2: ChaCha20Poly1305}[suite[0]]
            data_cipher = cipher(derive_key("netflash 2026 data key of a sender", bound))
            own = cipher(derive_key("netflash 2026 announce key of a sender", bound))
            count["announces"] += 1
            plain = opened(own, datagram[10:14], datagram, 63, len(datagram) - 64)
            count["announces_opened"] += plain is not None
        elif datagram[0] == 0x11 and data_cipher and count["symbols"] < 500:
            count["symbols"] += 1
            plain = opened(data_cipher, datagram[6:10], datagram, 16, len(datagram))
            count["symbols_opened"] += plain is not None
            count["found"] += plain is not None and plain[:64] in image
    print(json.dumps(count))


if __name__ == "__main__":
    main(*sys.argv[1:])
