//! Digest authentication (RFC 2617) as AMT wants it: MD5, `qop=auth`, one nonce for several requests.

use super::super::login::Login;

/// Longest challenge read, in bytes.
const CHALLENGE_MAX: usize = 2048;

/// What the device asks to be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Challenge {
    realm: String,
    nonce: String,
    /// The answer was right, but its nonce is used up.
    pub(super) stale: bool,
    /// Requests answered with this nonce.
    count: u32,
}

impl Challenge {
    /// A `WWW-Authenticate` header; `None` when it is none that can be answered.
    pub(super) fn parse(header: &str) -> Option<Challenge> {
        let rest = header
            .get(..7)
            .filter(|word| word.eq_ignore_ascii_case("digest "));
        let rest = rest
            .filter(|_| header.len() <= CHALLENGE_MAX)
            .map(|_| &header[7..])?;
        let (mut realm, mut nonce, mut stale, mut qop) = (None, None, false, None);
        for (name, value) in parameters(rest) {
            match name.to_ascii_lowercase().as_str() {
                "realm" => realm = Some(value),
                "nonce" => nonce = Some(value),
                "stale" => stale = value.eq_ignore_ascii_case("true"),
                "qop" => qop = Some(value),
                "algorithm" if !value.eq_ignore_ascii_case("MD5") => return None,
                _ => {}
            }
        }
        let offers_auth = qop?.split(',').any(|word| word.trim() == "auth");
        // They go back between quotes, where a quote or a line end would be another header.
        let plain = |text: &String| {
            text.bytes()
                .all(|b| (b' '..0x7f).contains(&b) && b != b'"' && b != b'\\')
        };
        let challenge = Challenge {
            realm: realm.filter(plain)?,
            nonce: nonce.filter(plain)?,
            stale,
            count: 0,
        };
        offers_auth.then_some(challenge)
    }

    /// Whether a request was answered with it already: then the device may only be tired of its nonce.
    pub(super) fn was_used(&self) -> bool {
        self.count > 0
    }

    /// The `Authorization` header of the next request.
    pub(super) fn answer(
        &mut self,
        login: &Login,
        method: &str,
        path: &str,
        cnonce: &str,
    ) -> String {
        self.count += 1;
        let count = format!("{:08x}", self.count);
        let (realm, nonce) = (&self.realm, &self.nonce);
        let user = login.user.replace(['"', '\\'], "");
        let who = hex_md5(&format!("{user}:{realm}:{}", login.password.text()));
        let what = hex_md5(&format!("{method}:{path}"));
        let response = hex_md5(&format!("{who}:{nonce}:{count}:{cnonce}:auth:{what}"));
        format!(
            "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{path}\", \
             response=\"{response}\", qop=auth, nc={count}, cnonce=\"{cnonce}\""
        )
    }
}

/// `name="value"` and `name=value`, separated by commas; a comma inside quotes separates nothing.
fn parameters(text: &str) -> Vec<(&str, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim_matches([',', ' ']);
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap_or((quoted, "")),
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((name, value.trim().to_owned()));
        rest = next;
    }
    found
}

fn hex_md5(text: &str) -> String {
    let bytes = md5(text.as_bytes());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// RFC 1321. It protects nothing any more; devices ask for it all the same, and no other code here may use it.
fn md5(message: &[u8]) -> [u8; 16] {
    const SHIFTS: [[u32; 4]; 4] = [
        [7, 12, 17, 22],
        [5, 9, 14, 20],
        [4, 11, 16, 23],
        [6, 10, 15, 21],
    ];
    // floor(2^32 * |sin(i + 1)|): exact in double precision.
    let sine = |i: usize| (((i + 1) as f64).sin().abs() * 4_294_967_296.0) as u32;
    let mut state = [0x6745_2301_u32, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(64), 0);
    if padded.len() - message.len() < 9 {
        padded.resize(padded.len() + 64, 0);
    }
    let end = padded.len() - 8;
    padded[end..].copy_from_slice(&(message.len() as u64 * 8).to_le_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0_u32; 16];
        for (word, four) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        }
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64 {
            let (mixed, word) = match i / 16 {
                0 => ((b & c) | (!b & d), i),
                1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
                2 => (b ^ c ^ d, (3 * i + 5) % 16),
                _ => (c ^ (b | !d), 7 * i % 16),
            };
            let sum = a
                .wrapping_add(mixed)
                .wrapping_add(sine(i))
                .wrapping_add(words[word]);
            (a, d, c) = (d, c, b);
            b = b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4]));
        }
        for (word, add) in state.iter_mut().zip([a, b, c, d]) {
            *word = word.wrapping_add(add);
        }
    }
    let mut digest = [0; 16];
    for (four, word) in digest.chunks_exact_mut(4).zip(state) {
        four.copy_from_slice(&word.to_le_bytes());
    }
    digest
}

#[cfg(test)]
mod tests {
    use super::super::super::login::{Login, Password};
    use super::{Challenge, hex_md5};

    #[test]
    fn md5_is_that_of_the_standard() {
        let letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        for (text, digest) in [
            ("", "d41d8cd98f00b204e9800998ecf8427e"),
            ("abc", "900150983cd24fb0d6963f7d28e17f72"),
            (letters, "d174ab98d277d9f5a5611c2c9f419d9f"),
            (&"1234567890".repeat(8), "57edf4a22be3c955ac49da2e2107b67a"),
        ] {
            assert_eq!(hex_md5(text), digest);
        }
    }

    #[test]
    fn an_answer_is_that_of_the_standards_example() {
        // RFC 2617, section 3.5.
        let header = "Digest realm=\"testrealm@host.com\", qop=\"auth,auth-int\",nonce=\"dcd98b7102dd2f0e8b11d0f600bfb0c093\", opaque=\"x, y\"";
        let login = Login {
            user: "Mufasa".to_owned(),
            password: Password::new("Circle Of Life".to_owned()),
            stamp: 0,
        };
        let mut challenge = Challenge::parse(header).unwrap();
        let answer = challenge.answer(&login, "GET", "/dir/index.html", "0a4f113b");
        assert!(
            answer.contains("response=\"6629fae49393a05397450978507c4ef1\""),
            "{answer}"
        );
        let second = challenge.answer(&login, "GET", "/dir/index.html", "0a4f113b");
        assert!(second.contains("nc=00000002"), "{second}");
    }

    #[test]
    fn challenges_are_read_as_devices_write_them() {
        let amt = "Digest realm=\"Digest:72\", nonce=\"B9AX/3uA\",stale=\"true\",qop=\"auth\"";
        assert!(Challenge::parse(amt).unwrap().stale);
        for bad in [
            "",
            "Basic realm=\"x\"",
            "Digest realm=\"x\", nonce=\"y\"",
            "Digest qop=\"auth\"",
            "Digest realm=\"x\", nonce=\"y\", qop=\"auth\", algorithm=SHA-256",
            "Digest realm=\"x\r\ny\", nonce=\"y\", qop=\"auth\"",
        ] {
            assert_eq!(Challenge::parse(bad), None, "{bad}");
        }
    }
}
