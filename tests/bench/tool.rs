//! The programs compared, with the options that served them best.

use std::{fmt, path::Path};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tests::net::{Hall, Program, netflash};

use crate::cell::Cell;

/// One of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Tool {
    Netflash,
    Udpcast,
    Uftp,
    /// udpcast between `zstd` and `zstd -d`.
    UdpcastZstd,
}

impl Tool {
    pub(crate) const ALL: [Tool; 3] = [Tool::Netflash, Tool::Udpcast, Tool::Uftp];

    /// Whether its receivers end by themselves when they have everything.
    pub(crate) fn receivers_end(self) -> bool {
        self != Tool::Uftp
    }

    /// How its programs are called, `RAW`, `IMG`, `N`, `RATE`, `HOSTS` and `OUT` standing for what differs.
    pub(crate) fn command_lines(self) -> [&'static str; 2] {
        match self {
            Tool::UdpcastZstd => [
                "zstd -qc RAW | udp-sender --interface eth0 --full-duplex --nopointopoint --min-receivers N --max-wait 20 \
                 --nokbd --rexmit-hello-interval 200 --retries-until-drop 500 --max-bitrate RATEm \
                 --mcast-data-address 239.192.78.71 --ttl 1 --no-progress",
                "udp-receiver --interface eth0 --nokbd --rcvbuf 8m --start-timeout 30 --no-progress | \
                 zstd -dqf --sparse -o OUT",
            ],
            Tool::Netflash => [
                "netflash send IMG --receivers N --rate RATEM --json",
                "netflash receive OUT --yes --json",
            ],
            Tool::Udpcast => [
                "udp-sender --file RAW --interface eth0 --full-duplex --nopointopoint --min-receivers N --max-wait 20 --nokbd \
                 --rexmit-hello-interval 200 --retries-until-drop 500 --max-bitrate RATEm \
                 --mcast-data-address 239.192.78.71 --ttl 1 --no-progress",
                "udp-receiver --file OUT --interface eth0 --nokbd --rcvbuf 8m --start-timeout 30 --no-progress",
            ],
            Tool::Uftp => [
                "uftp -R RATE000 -B 8388608 -C none -I eth0 -t 1 -r 0.05:0.01:0.5 -H HOSTS RAW",
                "uftpd -d -B 8388608 -I eth0 -D OUT",
            ],
        }
    }

    /// The directory or file that a receiver writes, and where the bytes are in the end.
    pub(crate) fn output_of(self, directory: &Path, name: &str, raw: &Path) -> (String, String) {
        let own = directory.join(name);
        match self {
            Tool::Uftp => {
                let file = own.join(raw.file_name().unwrap_or_default());
                (own.display().to_string(), file.display().to_string())
            }
            Tool::Netflash | Tool::Udpcast | Tool::UdpcastZstd => {
                (own.display().to_string(), own.display().to_string())
            }
        }
    }

    /// Starts the receiver in `namespace`.
    pub(crate) fn receiver(self, namespace: &str, output: &str, cell: &Cell) -> Result<Program> {
        let mut line = self.command_lines()[1].to_owned();
        if self == Tool::Netflash {
            for (said, option) in [
                (!cell.merging, " --no-merge"),
                (cell.sample, " --verify sample"),
                (cell.sealed, " --key-file KEY"),
            ] {
                line.push_str(if said { option } else { "" });
            }
        }
        let key = cell.key.display().to_string();
        self.start(namespace, &line, &[("OUT", output), ("KEY", &key)])
    }

    /// Starts the sender.
    pub(crate) fn sender(self, hall: &Hall, cell: &Cell) -> Result<Program> {
        let mut line = self.command_lines()[0].to_owned();
        if self == Tool::Netflash && cell.sealed {
            line.push_str(" --key-file KEY");
        }
        let hosts: Vec<String> = (1..=cell.world.receivers)
            .map(|number| hall.address(number))
            .collect();
        let replace = [
            ("RAW", cell.raw.display().to_string()),
            ("IMG", cell.image.display().to_string()),
            ("RATE", cell.rate_megabits.to_string()),
            ("HOSTS", hosts.join(",")),
            ("KEY", cell.key.display().to_string()),
        ];
        let mut replace: Vec<(&str, &str)> = replace
            .iter()
            .map(|(from, to)| (*from, to.as_str()))
            .collect();
        let count = cell.world.receivers.to_string();
        replace.push(("N", &count));
        self.start(hall.sender(), &line, &replace)
    }

    fn start(self, namespace: &str, line: &str, replace: &[(&str, &str)]) -> Result<Program> {
        let words: Vec<String> = line
            .split_whitespace()
            .map(|word| {
                let known = replace
                    .iter()
                    .find(|(from, _)| word.trim_end_matches(['0', 'm', 'M']) == *from);
                known.map_or_else(|| word.to_owned(), |(from, to)| word.replacen(from, to, 1))
            })
            .collect();
        if self == Tool::UdpcastZstd {
            let words = ["-c", &words.join(" ")];
            return Program::start(format!("{self} at {namespace}"), namespace, "sh", words);
        }
        let program = match words[0].as_str() {
            "netflash" => netflash()?.into_os_string(),
            other => other.into(),
        };
        Program::start(
            format!("{} at {namespace}", words[0]),
            namespace,
            program,
            &words[1..],
        )
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tool::Netflash => "netflash",
            Tool::Udpcast => "udpcast",
            Tool::Uftp => "UFTP",
            Tool::UdpcastZstd => "udpcast + zstd",
        })
    }
}
