//! Joins the two halves of a flash: blocks of `multicast` become frames of `imager`.
//!
//! ```text
//!   Waiting ──begin──▶ Open ──settle──▶ Settling ──▶ Open, with frames wanted again, or settled
//!      └─────────────────┴─────────────────┴──▶ failed, in words for the operator
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use netflash_imager::{
    Deploy, DeployError, DeployObserver, DeployOptions, FRAME_BYTES, FrameSet, ImageId, Manifest,
    Plan, Target,
};
use netflash_multicast::{BlockId, BlockSink, Layout, ObjectId, SinkError, Start, Verdict};

/// How far a disk is, for everybody who watches.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Raw bytes of frames in use.
    pub total_bytes: AtomicU64,
    /// Raw bytes of them that are right on the disk.
    pub done_bytes: AtomicU64,
    /// Frames in use that were right before anything was received.
    pub kept_frames: AtomicU64,
}

/// A disk that takes blocks.
pub(crate) struct DeploySink {
    state: State,
    image: ImageId,
    options: DeployOptions,
    observer: DeployObserver,
    plan: Option<Plan>,
    /// Frames of a delivered block that are not judged yet, and whether one was refused.
    open_blocks: BTreeMap<u32, OpenBlock>,
    verdicts: VecDeque<Verdict>,
    tally: Arc<Tally>,
}

struct OpenBlock {
    frames: usize,
    refused: bool,
}

enum State {
    Waiting(Target),
    Open(Box<Deploy>),
    Settling(JoinHandle<Settled>),
    Failed(String),
    /// Between two states, and after the deploy was taken out.
    Empty,
}

type Settled = (Box<Deploy>, Result<FrameSet, DeployError>);

impl DeploySink {
    /// A sink that puts `image`, and no other, on `target`.
    pub(crate) fn new(
        image: ImageId,
        target: Target,
        options: DeployOptions,
        observer: DeployObserver,
        tally: Arc<Tally>,
    ) -> DeploySink {
        DeploySink {
            state: State::Waiting(target),
            image,
            options,
            observer,
            plan: None,
            open_blocks: BTreeMap::new(),
            verdicts: VecDeque::new(),
            tally,
        }
    }

    /// The deploy, to be committed, once the transfer has settled.
    pub(crate) fn into_deploy(self) -> Option<Deploy> {
        match self.state {
            State::Open(deploy) => Some(*deploy),
            _ => None,
        }
    }

    fn open(&mut self, preamble: &[u8], target: Target) -> Result<Start, String> {
        let manifest = Manifest::parse(preamble).map_err(|error| error.to_string())?;
        // The order names the image; whoever sends something else sends it to somebody else.
        if manifest.id() != self.image {
            return Err(format!(
                "the session sends image {}, the job is about {}",
                manifest.id(),
                self.image
            ));
        }
        let plan = Plan::new(&manifest);
        let blocks = plan.blocks();
        let layout = Layout::new(blocks.iter().map(|block| block.bytes).collect())
            .map_err(|error| error.to_string())?;
        let deploy = Deploy::begin(
            Arc::new(manifest),
            target,
            self.options.clone(),
            self.observer.clone(),
        )
        .map_err(|error| error.to_string())?;
        let mut wanted = vec![false; blocks.len()];
        for frame in deploy.wanted().iter() {
            let block = plan
                .block_of(frame)
                .ok_or_else(|| format!("frame {frame} is wanted and not in any block"))?;
            wanted[block as usize] = true;
        }
        let frames = deploy.own_frames();
        let total = frames * u64::from(FRAME_BYTES);
        self.tally.total_bytes.store(total, Ordering::Relaxed);
        let kept = frames.saturating_sub(deploy.wanted().len() as u64);
        self.tally.kept_frames.store(kept, Ordering::Relaxed);
        self.plan = Some(plan);
        self.count(&deploy);
        self.state = State::Open(Box::new(deploy));
        Ok(Start { layout, wanted })
    }

    fn count(&self, deploy: &Deploy) {
        let lacking = deploy.wanted().len() as u64 * u64::from(FRAME_BYTES);
        let total = self.tally.total_bytes.load(Ordering::Relaxed);
        let done = total.saturating_sub(lacking);
        self.tally.done_bytes.store(done, Ordering::Relaxed);
    }

    /// Turns frames judged by the disk into verdicts about whole blocks.
    fn judge(&mut self) {
        let State::Open(deploy) = &mut self.state else {
            return;
        };
        let Some(plan) = &self.plan else {
            return;
        };
        let mut news = false;
        while let Some(outcome) = deploy.try_outcome() {
            news = true;
            let Some(block) = plan.block_of(outcome.frame) else {
                continue;
            };
            let Some(open) = self.open_blocks.get_mut(&block) else {
                continue;
            };
            open.frames = open.frames.saturating_sub(1);
            open.refused |= !outcome.written;
            if open.frames == 0 {
                let verdict = if open.refused {
                    Verdict::Rejected(BlockId(block))
                } else {
                    Verdict::Accepted(BlockId(block))
                };
                self.open_blocks.remove(&block);
                self.verdicts.push_back(verdict);
            }
        }
        if news && let State::Open(deploy) = &self.state {
            self.count(deploy);
        }
    }

    /// Takes the result of the read-back, when it is there.
    fn collect(&mut self) {
        if !matches!(&self.state, State::Settling(thread) if thread.is_finished()) {
            return;
        }
        let State::Settling(thread) = std::mem::replace(&mut self.state, State::Empty) else {
            return;
        };
        self.state = match thread.join() {
            Ok((deploy, Ok(wrong))) => {
                let plan = self.plan.as_ref();
                let blocks: BTreeSet<u32> = wrong
                    .iter()
                    .filter_map(|frame| plan.and_then(|plan| plan.block_of(frame)))
                    .collect();
                self.verdicts
                    .extend(blocks.into_iter().map(|b| Verdict::Rejected(BlockId(b))));
                self.verdicts.push_back(Verdict::Settled);
                self.count(&deploy);
                State::Open(deploy)
            }
            Ok((_, Err(error))) => State::Failed(error.to_string()),
            Err(_) => State::Failed("reading the disk back ended in a defect of ours".into()),
        };
    }
}

impl BlockSink for &mut DeploySink {
    fn begin(&mut self, preamble: &[u8], _: &ObjectId) -> Result<Start, SinkError> {
        let State::Waiting(target) = std::mem::replace(&mut self.state, State::Empty) else {
            return Err(SinkError("the disk was begun twice".into()));
        };
        self.open(preamble, target).map_err(SinkError)
    }

    fn deliver(&mut self, block: BlockId, payload: Vec<u8>) {
        let (State::Open(deploy), Some(plan)) = (&mut self.state, &self.plan) else {
            return;
        };
        let frames = plan.frames(block.index()).to_vec();
        let open = OpenBlock {
            frames: frames.len(),
            refused: false,
        };
        self.open_blocks.insert(block.index(), open);
        if let Err(error) = deploy.submit(frames, payload) {
            self.state = State::Failed(error.to_string());
        }
    }

    fn settle(&mut self) {
        match std::mem::replace(&mut self.state, State::Empty) {
            State::Open(mut deploy) => {
                // Reading back takes as long as writing; the session must go on meanwhile.
                let settle = move || {
                    let outcome = deploy.settle();
                    (deploy, outcome)
                };
                self.state = match thread::Builder::new().name("settle".into()).spawn(settle) {
                    Ok(thread) => State::Settling(thread),
                    Err(error) => State::Failed(format!("reading the disk back: {error}")),
                };
            }
            other => self.state = other,
        }
    }

    fn poll_verdict(&mut self) -> Option<Verdict> {
        self.judge();
        self.collect();
        self.verdicts.pop_front()
    }

    fn poll_failure(&mut self) -> Option<String> {
        if let State::Open(deploy) = &self.state
            && let Some(error) = deploy.failure()
        {
            self.state = State::Failed(error.to_string());
        }
        match &mut self.state {
            State::Failed(reason) => {
                let reason = std::mem::take(reason);
                self.state = State::Empty;
                Some(reason)
            }
            _ => None,
        }
    }

    fn reclaim(&mut self) -> Option<Vec<u8>> {
        match &mut self.state {
            State::Open(deploy) => deploy.reclaim(),
            _ => None,
        }
    }

    fn backlog_bytes(&self) -> u64 {
        match &self.state {
            State::Open(deploy) => deploy.backlog_bytes(),
            _ => 0,
        }
    }

    fn has_room(&self) -> bool {
        matches!(&self.state, State::Open(deploy) if deploy.room())
    }
}

#[cfg(test)]
mod tests;
