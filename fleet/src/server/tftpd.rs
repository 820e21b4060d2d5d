//! The server's own TFTP: loaders, GRUB's questions and what the agent is made of.
//!
//! One task listens; each transfer is a task with a port of its own, as RFC 1350 wants it. A program that serves only
//! files could not answer GRUB, whose questions are names of files that are different each time they are read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;
use netflash_pxe::{
    TftpHeard, TftpOutcome, TftpRead, TftpRefusal, TftpTransfer, TftpTransmit, tftp_data,
};
use tokio::net::UdpSocket;
use tokio::time::{Instant as Deadline, sleep_until};

mod shelf;

use shelf::Goods;
pub(super) use shelf::{Shelf, is_signed};

/// Transfers at a time. Whoever comes later is not answered and asks again.
const TRANSFERS_MAX: usize = 512;
/// Transfers of one client at a time: GRUB opens all files of the agent before it reads the first.
const TRANSFERS_OF_ONE_MAX: usize = 16;
/// Longest datagram that is looked at, in bytes: a request is shorter.
const DATAGRAM_MAX: usize = 1024;
/// How much of a file is read at once, in bytes.
const AHEAD: usize = 64 * 1024;

/// The port, bound where machines ask.
pub(super) fn listen(address: SocketAddrV4) -> anyhow::Result<StdSocket> {
    let socket = StdSocket::bind(address)
        .with_context(|| format!("listening for TFTP on {address}; does another server run?"))?;
    socket.set_nonblocking(true).context("preparing a socket")?;
    Ok(socket)
}

/// Answer requests for as long as the runtime lives.
pub(super) async fn serve(socket: StdSocket, shelf: Shelf) -> io::Result<()> {
    let own = match socket.local_addr()? {
        SocketAddr::V4(address) => *address.ip(),
        SocketAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let socket = UdpSocket::from_std(socket)?;
    let crowd = Crowd::default();
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        let (length, peer) = match socket.recv_from(&mut buffer).await {
            Ok(received) => received,
            Err(error) => {
                // What the network says of an answer that found nobody.
                log::debug!("tftp {error}");
                continue;
            }
        };
        let read = match TftpHeard::parse(&buffer[..length]) {
            Some(TftpHeard::Read(read)) => read,
            Some(TftpHeard::Unfit(why)) => {
                let refusal = TftpRefusal::Illegal.render(why);
                // One who is not there any more misses nothing.
                let _ = socket.send_to(&refusal, peer).await;
                continue;
            }
            _ => continue,
        };
        let Some(place) = crowd.admit(peer) else {
            continue;
        };
        let shelf = shelf.clone();
        tokio::spawn(async move {
            if let Err(error) = answer(own, peer, &read, shelf).await {
                log::debug!("tftp peer={peer} file={:?} error={error}", read.path);
            }
            drop(place);
        });
    }
}

/// One request, from a port of its own.
async fn answer(own: Ipv4Addr, peer: SocketAddr, read: &TftpRead, shelf: Shelf) -> io::Result<()> {
    let socket = UdpSocket::bind((own, 0)).await?;
    socket.connect(peer).await?;
    let path = read.path.clone();
    let found = tokio::task::spawn_blocking(move || shelf.find(&path)).await;
    let goods = match found {
        Ok(Ok(goods)) => goods,
        Ok(Err(refusal)) => {
            // Shim and GRUB ask for half a dozen files that need not be there.
            log::debug!(
                "tftp peer={} file={:?} state=refused reason={refusal:?}",
                peer.ip(),
                read.path
            );
            let words = match refusal {
                TftpRefusal::NotFound => "no such file",
                TftpRefusal::Illegal => "not here",
                TftpRefusal::Failed => "the server failed; see its log",
            };
            socket.send(&refusal.render(words)).await?;
            return Ok(());
        }
        Err(died) => {
            log::error!("tftp request died: {died}");
            let refusal = TftpRefusal::Failed.render("the server failed; see its log");
            socket.send(&refusal).await?;
            return Ok(());
        }
    };
    let bytes = goods.bytes();
    let begun = Instant::now();
    let transfer = TftpTransfer::new(begun, read, bytes);
    let outcome = transfer_to(&socket, transfer, Reader::new(goods)).await?;
    let (peer, file) = (peer.ip(), &read.path);
    match outcome {
        TftpOutcome::Done | TftpOutcome::Silent { all_sent: true } => log::info!(
            "tftp peer={peer} file={file:?} bytes={bytes} seconds={:.1} state=sent",
            begun.elapsed().as_secs_f64()
        ),
        TftpOutcome::Aborted { code, message } => log::debug!(
            "tftp peer={peer} file={file:?} code={code} message={message:?} state=aborted"
        ),
        TftpOutcome::Silent { all_sent: false } => {
            log::warn!("tftp peer={peer} file={file:?} bytes={bytes} state=silent");
        }
    }
    Ok(())
}

/// The run loop: what the transfer wants sent is sent, what comes and the passing of time are told to it.
async fn transfer_to(
    socket: &UdpSocket,
    mut transfer: TftpTransfer,
    mut reader: Reader,
) -> io::Result<TftpOutcome> {
    let mut buffer = [0; DATAGRAM_MAX];
    loop {
        while let Some(transmit) = transfer.poll_transmit() {
            let datagram = match transmit {
                TftpTransmit::Options(datagram) => datagram,
                TftpTransmit::Block {
                    number,
                    offset,
                    length,
                } => match reader.block(offset, length).await {
                    Ok(content) => tftp_data(number, content),
                    Err(error) => {
                        let refusal = TftpRefusal::Failed.render("the file cannot be read");
                        socket.send(&refusal).await?;
                        return Err(error);
                    }
                },
            };
            socket.send(&datagram).await?;
        }
        let Some(deadline) = transfer.poll_timeout() else {
            break;
        };
        tokio::select! {
            received = socket.recv(&mut buffer) => {
                if let Some(heard) = TftpHeard::parse(&buffer[..received?]) {
                    transfer.handle(Instant::now(), heard);
                }
            }
            () = sleep_until(Deadline::from_std(deadline)) => {
                transfer.handle_timeout(Instant::now());
            }
        }
    }
    let outcome = transfer.outcome().cloned();
    Ok(outcome.unwrap_or(TftpOutcome::Silent { all_sent: false }))
}

/// Gives blocks of what is sent; files are read some way ahead.
struct Reader {
    goods: Arc<Goods>,
    start: u64,
    ahead: Vec<u8>,
}

impl Reader {
    fn new(goods: Goods) -> Reader {
        Reader {
            goods: Arc::new(goods),
            start: 0,
            ahead: Vec::new(),
        }
    }

    async fn block(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let begins = offset.checked_sub(self.start);
        let within = |at: &usize| at + length <= self.ahead.len();
        let mut at = begins
            .and_then(|at| usize::try_from(at).ok())
            .filter(within);
        if at.is_none() {
            let goods = Arc::clone(&self.goods);
            let read = tokio::task::spawn_blocking(move || goods.read(offset));
            self.ahead = read.await.map_err(io::Error::other)??;
            self.start = offset;
            at = (length <= self.ahead.len()).then_some(0);
        }
        // A file that became shorter since it was opened.
        let at = at.ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(&self.ahead[at..at + length])
    }
}

impl Goods {
    /// Some of it from `offset` on; all that is left, where that is little.
    fn read(&self, offset: u64) -> io::Result<Vec<u8>> {
        match self {
            Goods::Bytes(bytes) => {
                let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..));
                Ok(rest.unwrap_or_default().to_vec())
            }
            Goods::File { file, bytes } => read_at(file, offset, *bytes),
        }
    }
}

fn read_at(file: &File, offset: u64, bytes: u64) -> io::Result<Vec<u8>> {
    let rest = usize::try_from(bytes.saturating_sub(offset)).unwrap_or(AHEAD);
    let mut content = vec![0; rest.min(AHEAD)];
    file.read_exact_at(&mut content, offset)?;
    Ok(content)
}

/// Who is being served, by address and port: a repeated request is the same one.
#[derive(Clone, Default)]
struct Crowd(Arc<Mutex<BTreeSet<SocketAddr>>>);

/// A place in the crowd; free again when this is dropped.
struct Place {
    crowd: Crowd,
    peer: SocketAddr,
}

impl Crowd {
    fn admit(&self, peer: SocketAddr) -> Option<Place> {
        let mut crowd = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = crowd.iter().filter(|other| other.ip() == peer.ip());
        if crowd.contains(&peer)
            || crowd.len() >= TRANSFERS_MAX
            || own.count() >= TRANSFERS_OF_ONE_MAX
        {
            return None;
        }
        crowd.insert(peer);
        Some(Place {
            crowd: self.clone(),
            peer,
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut crowd = self.crowd.0.lock().unwrap_or_else(PoisonError::into_inner);
        crowd.remove(&self.peer);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::{AHEAD, Crowd, Goods, Reader, TRANSFERS_OF_ONE_MAX};

    #[test]
    fn a_repeated_request_is_the_same_and_a_greedy_client_waits() {
        let crowd = Crowd::default();
        let peer = |port| SocketAddr::from(([10, 0, 0, 1], port));
        let first = crowd.admit(peer(1)).unwrap();
        assert!(crowd.admit(peer(1)).is_none());
        let others: Vec<_> = (2..99).filter_map(|port| crowd.admit(peer(port))).collect();
        assert_eq!(others.len(), TRANSFERS_OF_ONE_MAX - 1);
        assert!(crowd.admit(SocketAddr::from(([10, 0, 0, 2], 1))).is_some());
        drop(first);
        assert!(crowd.admit(peer(1)).is_some());
    }

    #[tokio::test]
    async fn blocks_are_those_of_the_file_in_any_order() {
        let content: Vec<u8> = (0..AHEAD as u32 * 2 + 5).map(|n| (n % 251) as u8).collect();
        let scratch = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(scratch.path(), &content).unwrap();
        let file = std::fs::File::open(scratch.path()).unwrap();
        let bytes = content.len() as u64;
        let mut reader = Reader::new(Goods::File { file, bytes });
        for offset in [0, 1468, AHEAD - 3, AHEAD * 2 - 9, 4, AHEAD * 2 - 7] {
            let block = reader.block(offset as u64, 12).await.unwrap();
            assert_eq!(block, &content[offset..offset + 12]);
        }
        assert!(reader.block(bytes, 0).await.unwrap().is_empty());
        assert!(reader.block(bytes - 3, 12).await.is_err());
    }
}
