//! What is measured: each case is a kind of network, and the cells that are run in it.

use clap::ValueEnum;

use crate::{
    cell::{Cell, World},
    tool::Tool,
};

/// Machines of the case `rooms`.
const ROOMS: [usize; 3] = [1, 4, 8];

/// A question to the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Case {
    /// A link of 100 Mbit/s: what reaches the machines of what it carries?
    Network,
    /// Segmentation offload on, nothing lost: how fast can one sender feed a room?
    Offload,
    /// The same for longer: how fast once it flows?
    Steady,
    /// Every datagram by itself, lossy: what does a transfer cost a processor?
    Cpu,
    /// One, four and eight machines: does a room cost more than a machine?
    Rooms,
    /// The same with and without a key: what does sealing cost?
    Sealed,
    /// A whole disk with an operating system, from its image to four disks.
    Image,
    /// One receiver behind 1 Gbit/s: fixed rates, `auto`, and `auto` beside TCP.
    Rate,
    /// The erasure code alone: sizes of blocks, losses, and the time of both ends.
    Code,
    /// A disk with 1 GB used becomes an image, beside partclone.
    Capture,
    /// An image becomes a disk, beside partclone.
    Restore,
    /// The same image on the same disk once more.
    Again,
    /// A guest that was booted once, flashed again: what differs, by size of frame.
    Delta,
    /// Levels of compression, noise, and memory.
    Levels,
}

impl Case {
    /// What it is called in the document.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Case::Network => "A link of 100 Mbit/s",
            Case::Offload => "Segmentation offload, no loss",
            Case::Steady => "Segmentation offload, for longer",
            Case::Cpu => "Every datagram by itself",
            Case::Rooms => "One, four and eight machines",
            Case::Sealed => "With a key and without",
            Case::Image => "A disk with Debian to four machines",
            Case::Rate => "The rate behind 1 Gbit/s",
            Case::Code => "The erasure code",
            Case::Capture => "From a disk to an image",
            Case::Restore => "From an image to a disk",
            Case::Again => "A disk that holds the image already",
            Case::Delta => "A disk that was used for one boot",
            Case::Levels => "Levels of compression, and memory",
        }
    }

    /// What its figures mean, for the reader of the table.
    pub(crate) fn meaning(self) -> &'static str {
        match self {
            Case::Network => {
                "The sender's interface is a token bucket of 100 Mbit/s, and every sender is told to keep within it. \
                 *Share* is the part of the link that reached the machines as payload, times the wire ratio: 1 means \
                 that no time is lost at all, from the start of the sender to the end of the last receiver."
            }
            Case::Offload => {
                "The interfaces take segmented super-packets, as every network card of the last ten years does. The \
                 row *unmerged* has receivers that do without `UDP_GRO`. The wire ratio is that of the kernel's \
                 counter, which sees super-packets. The others send datagram by datagram and gain nothing from it."
            }
            Case::Steady => {
                "As before, with 256 MiB: the start and the end of a session count for less."
            }
            Case::Rooms => "Every datagram by itself, as before: rooms of several sizes.",
            Case::Cpu => {
                "Segmentation offload is off everywhere, so every datagram makes its way alone; the machine's cores \
                 are the limit. The row *sample* reads one MiB of 16 back instead of everything: the difference is \
                 what reading back costs, and the others do not read back at all."
            }
            Case::Sealed => {
                "As before, netflash alone, with and without `--key-file` at both ends."
            }
            Case::Image => {
                "From the file on the sender's disk to four disks in memory, over a link of 1 Gbit/s, with \
                 segmentation offload: netflash sends its image and verifies; udpcast is fed by `zstd` and feeds \
                 `zstd -d`, as people do it."
            }
            Case::Rate => {
                "1 GiB to one machine; the sender's interface is a token bucket of 1000 Mbit/s with a queue of 512 KiB. \
                 *Seconds* and *goodput* are of the time in which data flowed; after it comes the rest of the reading \
                 back. The TCP stream has the same link and sends all it can from before the transfer to its end; its \
                 worst second is that of any ten tenths in a row."
            }
            Case::Code => {
                "Milliseconds of one core for one block with symbols of 1452 bytes, best of many. *Transforms* is \
                 the decoder of the crate `reed-solomon-simd`, *ours* what netflash does for so many lost symbols. \
                 *Wire* is what must be sent for each source symbol so that the unluckiest of 100 machines has \
                 enough, if blocks are that long."
            }
            Case::Capture => {
                "A disk of 4 GB with one ext4 file system, filled with an even choice of the files of this machine's \
                 `/usr`. The disk is a loop device past the page cache, which is dropped before each run; images go to \
                 memory. netflash reads the whole disk with its tables, partclone the partition. What was read the \
                 kernel counts at the device; the kernel's threads of the loop device are nobody's processor time. \
                 netflash hashes each MiB besides. Median of the runs, made in turns."
            }
            Case::Restore => {
                "The images of the case before, onto a new sparse file behind a loop device past the page cache. \
                 netflash surveys, writes, flushes, reads everything back and commits; partclone's time ends when \
                 `sync` of its device does, and it reads nothing back."
            }
            Case::Again => {
                "The image of such a disk is put on a disk that holds it already, as large as the image's or larger, \
                 and compared with it. *Plain reading* is what two threads take to read the used and the zero parts \
                 with `O_DIRECT`, 1 MiB at a time. The page cache is dropped before each run; what was written the \
                 kernel counts at the device, in all runs."
            }
            Case::Delta => {
                "The Debian of the case `image` is booted once under QEMU, to its login prompt, and shut down. *Changed* is what a \
                 new flash would bring if frames were so long: chunks with a difference in a used or zero part, as a \
                 share of those that hold used bytes."
            }
            Case::Levels => {
                "From memory to memory with all cores; *verify* unpacks and hashes everything. *Memory* is the most \
                 that the program held, of which a part are pages of its own file."
            }
        }
    }

    /// The cells of this case, in the order of the table. `base` has the payload.
    pub(crate) fn cells(self, base: &Cell, receivers: &[usize], loss: &[f64]) -> Vec<Cell> {
        let lossy = loss.iter().flat_map(|&loss_percent| {
            receivers.iter().map(move |&receivers| {
                let world = World {
                    receivers,
                    loss_percent,
                    ..World::default()
                };
                Cell {
                    world,
                    ..base.clone()
                }
            })
        });
        let programs = |cell: Cell| {
            Tool::ALL.map(|tool| Cell {
                tool,
                ..cell.clone()
            })
        };
        match self {
            Case::Rooms => loss
                .iter()
                .flat_map(|&loss_percent| ROOMS.map(|receivers| (receivers, loss_percent)))
                .flat_map(|(receivers, loss_percent)| {
                    let world = World {
                        receivers,
                        loss_percent,
                        ..World::default()
                    };
                    programs(Cell {
                        world,
                        ..base.clone()
                    })
                })
                .collect(),
            Case::Network => lossy
                .flat_map(|cell| {
                    let world = World {
                        link_megabits: Some(100),
                        ..cell.world
                    };
                    programs(Cell {
                        world,
                        rate_megabits: 99,
                        ..cell
                    })
                })
                .collect(),
            Case::Cpu => lossy
                .flat_map(|cell| {
                    let sample = Cell {
                        sample: true,
                        ..cell.clone()
                    };
                    let mut cells = programs(cell).to_vec();
                    cells.insert(1, sample);
                    cells
                })
                .collect(),
            Case::Offload | Case::Steady => receivers
                .iter()
                .flat_map(|&receivers| {
                    let world = World {
                        receivers,
                        offload: true,
                        ..World::default()
                    };
                    let cell = Cell {
                        world,
                        ..base.clone()
                    };
                    let fast = |merging| Cell {
                        merging,
                        rate_megabits: base.fast_megabits,
                        ..cell.clone()
                    };
                    let [_, udpcast, uftp] = programs(cell.clone());
                    [fast(false), fast(true), udpcast, uftp]
                })
                .collect(),
            Case::Sealed => lossy
                .flat_map(|cell| {
                    [false, true].map(|sealed| Cell {
                        sealed,
                        ..cell.clone()
                    })
                })
                .collect(),
            Case::Image => [Tool::Netflash, Tool::UdpcastZstd]
                .map(|tool| Cell {
                    tool,
                    world: World {
                        receivers: 4,
                        link_megabits: Some(1000),
                        offload: true,
                        ..World::default()
                    },
                    rate_megabits: 980,
                    ..base.clone()
                })
                .to_vec(),
            Case::Rate
            | Case::Code
            | Case::Capture
            | Case::Restore
            | Case::Again
            | Case::Delta
            | Case::Levels => Vec::new(),
        }
    }
}
