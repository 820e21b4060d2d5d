#!/usr/bin/env python3
"""A machine with Intel AMT, as strict as firmware: digest, SOAP 1.2, one-time boot.

Usage: amt_device.py HOST USER PASSWORD LAB BOARD [OPTION...]

Options: busy=N (power requests that are answered "busy"), consent (somebody at
the machine must agree), console (serial over LAN was left on), nonce_uses=N,
page (HTML to everything), and tls=CERTIFICATE:KEY. It answers at a free port and prints it. Nothing is
answered from a recording; an answer is made from the state and from what
`LAB bmc BOARD` switches. On standard output: "wrong", "call CLASS METHOD".
"""
import hashlib
import os
import re
import socketserver
import ssl
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET

SOAP = "http://www.w3.org/2003/05/soap-envelope"
ADDRESSING = "http://schemas.xmlsoap.org/ws/2004/08/addressing"
WSMAN = "http://schemas.dmtf.org/wbem/wsman/1/wsman.xsd"
TRANSFER = "http://schemas.xmlsoap.org/ws/2004/09/transfer"
ENUMERATION = "http://schemas.xmlsoap.org/ws/2004/09/enumeration"
CIM = "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/"
AMT = "http://intel.com/wbem/wscim/1/amt-schema/1/"
IPS = "http://intel.com/wbem/wscim/1/ips-schema/1/"
CLASSES = {
    CIM + "CIM_ServiceAvailableToElement", CIM + "CIM_AssociatedPowerManagementService",
    CIM + "CIM_PowerManagementService", CIM + "CIM_BootConfigSetting",
    CIM + "CIM_BootService", CIM + "CIM_BootSourceSetting", AMT + "AMT_BootSettingData", IPS + "IPS_OptInService",
}
HEADERS = {"Action", "To", "ResourceURI", "MessageID", "ReplyTo"}
OPTIONAL = {"OperationTimeout", "SelectorSet", "MaxEnvelopeSize", "Locale"}
SOURCES = {"Intel(r) AMT: Force PXE Boot": "pxe", "Intel(r) AMT: Force Hard-drive Boot": "default"}
READ_ONLY = {"BIOSLastStatus", "BootguardStatus", "OptionsCleared", "RPEEnabled", "SecureBootControlEnabled",
             "UEFIHTTPSBootEnabled", "UEFILocalPBABootEnabled", "WinREBootEnabled"}
FLAGS = ["BIOSPause", "BIOSSetup", "ConfigurationDataReset", "ForcedProgressEvents", "LockKeyboard",
         "LockPowerButton", "LockResetButton", "LockSleepButton", "PlatformErase", "ReflashBIOS", "SecureErase",
         "UseIDER", "UseSOL", "UseSafeMode", "UserPasswordBypass"]
CHUNK = 0x220
WRONG_MAX = 4
PAGE = "<!DOCTYPE HTML><html><body><h1>Intel<sup>&reg;</sup> Active Management Technology</h1></body></html>"


def md5(text):
    return hashlib.md5(text.encode()).hexdigest()


def say(words):
    print(words, flush=True)


class Fault(Exception):
    """A SOAP fault, by its subcode."""


class Device:
    def __init__(self, user, password, lab, board, options):
        self.user, self.password = user, password
        self.command = [lab, "bmc", board]
        self.busy = int(options.get("busy", 0))
        self.consent = "consent" in options
        self.nonce_uses = int(options.get("nonce_uses", 1000))
        self.page = "page" in options
        self.realm = "Digest:" + os.urandom(16).hex().upper()
        self.nonces, self.wrong, self.contexts = {}, 0, {}
        self.role, self.source = 32768, None
        self.settings = {name: "false" for name in FLAGS}
        self.settings |= {name: "true" for name in READ_ONLY}
        self.settings |= {"ElementName": "Intel(r) AMT Boot Configuration Settings", "BootMediaIndex": "0",
                          "InstanceID": "Intel(r) AMT:BootSettingData 0", "OwningEntity": "Intel(r) AMT",
                          "EnforceSecureBoot": "false", "FirmwareVerbosity": "0", "IDERBootDevice": "0"}
        self.settings |= {"RSEPassword": "", "UefiBootNumberOfParams": "0"}
        if "console" in options:
            # What an earlier console left behind: no source can be chosen beside it.
            self.settings["UseSOL"] = "true"
        self.lock = threading.Lock()

    def board(self, *words):
        done = subprocess.run(self.command + list(words), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"the board: {done.stderr}")
        return done.stdout.strip().rpartition(":")[2]

    def challenge(self, stale):
        nonce = os.urandom(18).hex()
        self.nonces[nonce] = set()
        return (f'Digest realm="{self.realm}", nonce="{nonce}",stale="{"true" if stale else "false"}",'
                'qop="auth"')

    def check(self, header):
        """None when the login is right, else the challenge to answer (RFC 2617)."""
        if header is None:
            return self.challenge(False)
        given = dict(re.findall(r'(\w+)="?([^",]+)"?', header.removeprefix("Digest ")))
        uses = self.nonces.get(given.get("nonce"))
        if uses is None or len(uses) >= self.nonce_uses:
            return self.challenge(True)
        who = md5(f"{self.user}:{self.realm}:{self.password}")
        what = md5("POST:/wsman")
        right = md5(f"{who}:{given['nonce']}:{given.get('nc')}:{given.get('cnonce')}:auth:{what}")
        strict = (given.get("uri") == "/wsman" and given.get("qop") == "auth" and given.get("realm") == self.realm
                  and re.fullmatch("[0-9a-f]{8}", given.get("nc", "")) and given["nc"] not in uses)
        if self.wrong >= WRONG_MAX or not strict or given.get("response") != right:
            self.wrong += 1
            say("wrong")
            return self.challenge(False)
        uses.add(given["nc"])
        return None

    def answer(self, body):
        """The answer to an envelope, and its status."""
        if self.page:
            return 400, PAGE
        try:
            try:
                root = ET.fromstring(body)
            except ET.ParseError as error:
                raise Fault("InvalidRepresentation") from error
            return 200, self.run(root)
        except Fault as fault:
            return 400, envelope("", f"<a:Fault><a:Code><a:Value>a:Sender</a:Value><a:Subcode><a:Value>e:{fault}"
                                 "</a:Value></a:Subcode></a:Code><a:Reason><a:Text xml:lang=\"en-US\">no"
                                 "</a:Text></a:Reason><a:Detail></a:Detail></a:Fault>")

    def run(self, root):
        if root.tag != f"{{{SOAP}}}Envelope":
            raise Fault("VersionMismatch")
        header, body = root.find(f"{{{SOAP}}}Header"), root.find(f"{{{SOAP}}}Body")
        if header is None or body is None or len(body) > 1:
            raise Fault("InvalidRepresentation")
        fields = {}
        for field in header:
            namespace, name = field.tag[1:].split("}")
            known = namespace in (ADDRESSING, WSMAN) and name in HEADERS | OPTIONAL
            if not known and field.get(f"{{{SOAP}}}mustUnderstand") == "true":
                raise Fault("MustUnderstand")
            if name in fields:
                raise Fault("InvalidMessageInformationHeader")
            fields[name] = (field.text or "").strip()
        if not HEADERS <= set(fields):
            raise Fault("MessageInformationHeaderRequired")
        uri, action = fields["ResourceURI"], fields["Action"]
        if uri not in CLASSES:
            raise Fault("DestinationUnreachable")
        content = body[0] if len(body) else None
        name = uri.rsplit("/", 1)[1]
        if action == TRANSFER + "/Get":
            if content is not None:
                raise Fault("InvalidRepresentation")
            say(f"call {name} Get")
            return envelope(uri, self.get(name))
        if content is None:
            raise Fault("InvalidRepresentation")
        if action == TRANSFER + "/Put":
            say(f"call {name} Put")
            return envelope(uri, self.put(name, uri, content))
        if action.startswith(ENUMERATION):
            return envelope(uri, self.enumerate(name, action.rsplit("/", 1)[1], content))
        method = action.removeprefix(uri + "/")
        if content.tag != f"{{{uri}}}{method}_INPUT":
            raise Fault("InvalidRepresentation")
        say(f"call {name} {method}")
        inside = {child.tag.removeprefix(f"{{{uri}}}"): child for child in content}
        value = self.call(name, method, inside)
        return envelope(uri, f"<g:{method}_OUTPUT><g:ReturnValue>{value}</g:ReturnValue></g:{method}_OUTPUT>")

    def get(self, name):
        if name == "IPS_OptInService":
            required = 4294967295 if self.consent else 0
            return (f"<g:{name}><g:OptInRequired>{required}</g:OptInRequired>"
                    f"<g:OptInState>0</g:OptInState></g:{name}>")
        if name == "AMT_BootSettingData":
            inside = "<g:BIOSLastStatus>2</g:BIOSLastStatus>"
            inside += "".join(f"<g:{key}>{value}</g:{key}>" for key, value in sorted(self.settings.items()))
            return f"<g:{name}>{inside}</g:{name}>"
        if name == "CIM_AssociatedPowerManagementService":
            state = 2 if self.board("get", "power") == "1" else 8
            return f"<g:{name}><g:PowerState>{state}</g:PowerState></g:{name}>"
        raise Fault("DestinationUnreachable")

    def put(self, name, uri, content):
        if name != "AMT_BootSettingData" or content.tag != f"{{{uri}}}{name}":
            raise Fault("InvalidRepresentation")
        fresh = {}
        for child in content:
            key = child.tag.removeprefix(f"{{{uri}}}")
            if key not in self.settings or key in READ_ONLY or key in fresh:
                raise Fault("SchemaValidationError")
            fresh[key] = (child.text or "").strip()
        if any(fresh.get(key) == "true" for key in ("SecureErase", "PlatformErase", "ConfigurationDataReset")):
            sys.exit("the disk would be erased now")
        if self.source and any(fresh.get(key) == "true" for key in FLAGS):
            raise Fault("AccessDenied")
        self.settings |= fresh
        return self.get(name)

    def enumerate(self, name, action, content):
        if name != "CIM_ServiceAvailableToElement":
            raise Fault("DestinationUnreachable")
        if action == "Enumerate":
            context = os.urandom(4).hex()
            self.contexts[context] = 0
            return (f"<n:EnumerateResponse><n:EnumerationContext>{context}</n:EnumerationContext>"
                    "</n:EnumerateResponse>")
        context = content.findtext(f"{{{ENUMERATION}}}EnumerationContext")
        page = self.contexts.pop(context, None)
        if page is None:
            raise Fault("InvalidEnumerationContext")
        if page == 0:
            # The first page is empty: the next one has what there is.
            context = os.urandom(4).hex()
            self.contexts[context] = 1
            return (f"<n:PullResponse><n:EnumerationContext>{context}</n:EnumerationContext><n:Items></n:Items>"
                    "</n:PullResponse>")
        state = 2 if self.board("get", "power") == "1" else 8
        item = "CIM_AssociatedPowerManagementService"
        return (f"<n:PullResponse><n:Items><h:{item} xmlns:h=\"{CIM}{item}\"><h:PowerState>{state}</h:PowerState>"
                f"</h:{item}></n:Items><n:EndOfSequence></n:EndOfSequence></n:PullResponse>")

    def call(self, name, method, inside):
        if (name, method) == ("CIM_BootConfigSetting", "ChangeBootOrder"):
            if "Source" not in inside:
                self.source = None
                return self.arm()
            if self.consent:
                return 2
            source = selectors(inside["Source"], CIM + "CIM_BootSourceSetting").get("InstanceID")
            if source not in SOURCES:
                return 5
            if any(self.settings[key] == "true" for key in ("UseSOL", "UseIDER", "ReflashBIOS", "BIOSSetup")):
                return 2
            self.source = source
            return self.arm()
        if (name, method) == ("CIM_BootService", "SetBootConfigRole"):
            setting = selectors(inside["BootConfigSetting"], CIM + "CIM_BootConfigSetting")
            if setting.get("InstanceID") != "Intel(r) AMT: Boot Configuration 0":
                return 4
            self.role = int(inside["Role"].text)
            return self.arm() if self.role in (1, 32768) else 5
        if (name, method) == ("CIM_PowerManagementService", "RequestPowerStateChange"):
            machine = selectors(inside["ManagedElement"], CIM + "CIM_ComputerSystem")
            if machine.get("Name") != "ManagedSystem":
                return 5
            return self.power(int(inside["PowerState"].text))
        raise Fault("ActionNotSupported")

    def arm(self):
        """What is booted next follows from role and source."""
        armed = self.role == 1 and self.source
        self.board("set", "boot", SOURCES[self.source] if armed else "none")
        return 0

    def power(self, value):
        if self.busy > 0:
            self.busy -= 1
            return 4099
        on = self.board("get", "power") == "1"
        if value == 2:
            if on:
                return 2
            self.board("set", "power", "1")
        elif value == 8:
            self.board("set", "power", "0")
        elif value in (5, 10):
            if not on:
                return 2
            self.board("set", "reset", "1")
        else:
            # Graceful requests need an agent in the operating system.
            return 1
        if value in (2, 5, 10):
            self.role, self.source = 32768, None
        return 0


def selectors(reference, uri):
    """What an endpoint reference names; it must be of the class."""
    parameters = reference.find(f"{{{ADDRESSING}}}ReferenceParameters")
    if parameters is None or parameters.findtext(f"{{{WSMAN}}}ResourceURI") != uri:
        raise Fault("InvalidSelectors")
    return {s.get("Name") or s.get(f"{{{WSMAN}}}Name"): s.text
            for s in parameters.find(f"{{{WSMAN}}}SelectorSet")}


def envelope(uri, body):
    """All names on the envelope, no element closed in its own tag: so firmware writes."""
    return (f'<?xml version="1.0" encoding="UTF-8"?><a:Envelope xmlns:a="{SOAP}" xmlns:b="{ADDRESSING}" '
            f'xmlns:c="{WSMAN}" xmlns:e="{WSMAN}" xmlns:n="{ENUMERATION}" xmlns:g="{uri}"><a:Header><b:To>'
            f'{ADDRESSING}/role/anonymous</b:To><b:RelatesTo>0</b:RelatesTo><b:Action a:mustUnderstand="true">'
            f'{uri}</b:Action><b:MessageID>uuid:0</b:MessageID><c:ResourceURI>{uri}</c:ResourceURI></a:Header>'
            f"<a:Body>{body}</a:Body></a:Envelope>")


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while True:
            first = self.rfile.readline(4096).decode("latin-1").split()
            if not first:
                return
            headers = {}
            while (line := self.rfile.readline(4096).decode("latin-1").strip()):
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            length = headers.get("content-length")
            if first[:2] != ["POST", "/wsman"] or length is None or "transfer-encoding" in headers:
                self.reply(404 if first[1:2] != ["/wsman"] else 400, PAGE, True)
                return
            body = self.rfile.read(int(length))
            device = self.server.device
            with device.lock:
                challenge = device.check(headers.get("authorization"))
                if challenge is not None:
                    self.reply(401, PAGE, True, challenge)
                    return
                # pip's amt sends none with some requests, and firmware takes that.
                soap = headers.get("content-type", "application/soap+xml").startswith("application/soap+xml")
                status, text = device.answer(body) if soap else (400, PAGE)
            self.reply(status, text, status != 200)
            if status != 200:
                return

    def reply(self, status, text, close, challenge=None):
        head = f"HTTP/1.1 {status} Said\r\nServer: Intel(R) Active Management Technology 15.0.23.1706\r\n"
        head += "X-Frame-Options: DENY\r\nTransfer-Encoding: chunked\r\n"
        if challenge is not None:
            head += f"WWW-Authenticate: {challenge}\r\n"
        if close:
            head += "Connection: close\r\n"
        data = text.encode()
        self.wfile.write(head.encode() + b"\r\n")
        for at in range(0, len(data), CHUNK):
            piece = data[at:at + CHUNK]
            self.wfile.write(b"%04X\r\n" % len(piece) + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")
        self.wfile.flush()


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def get_request(self):
        wire, address = super().get_request()
        if self.tls is not None:
            wire = self.tls.wrap_socket(wire, server_side=True, do_handshake_on_connect=False)
        return wire, address

    def handle_error(self, request, client_address):
        """A client that goes away ends its own conversation only."""


def main():
    host, user, password, lab, board, *words = sys.argv[1:]
    host, _, port = host.partition(":")
    options = {name: value for name, _, value in (word.partition("=") for word in words)}
    with Server((host, int(port or 0)), Handler) as server:
        server.device = Device(user, password, lab, board, options)
        server.tls = None
        if "tls" in options:
            certificate, _, key = options["tls"].partition(":")
            server.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            server.tls.load_cert_chain(certificate, key)
        say(f"ready {server.server_address[1]}")
        server.serve_forever()


main()
