//! Where an image meets a session: the only place that knows both.
//!
//! ```text
//!   sender                                      receiver
//!   Image ─> ImageSource ─> blocks ~~~~> blocks ─> DeploySink ─> Deploy ─> disk
//! ```

use std::{
    collections::BTreeMap,
    collections::VecDeque,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
};

use netflash_imager::{
    Deploy, DeployError, DeployObserver, DeployOptions, DeployReport, FrameId, FrameSet, Image,
    ImageId, Manifest, Plan, Target, TargetOptions,
};
use netflash_multicast::{
    BlockId, BlockSink, BlockSource, Layout, LayoutError, ObjectId, SinkError, Start, Verdict,
};

/// An image as blocks to send. Frames go as they are stored: nothing is compressed again.
#[derive(Debug)]
pub struct ImageSource {
    image: Arc<Image>,
    plan: Plan,
    layout: Layout,
}

impl ImageSource {
    /// The blocks of `image`.
    ///
    /// # Errors
    /// When it is larger than a session can carry.
    pub fn new(image: Arc<Image>) -> Result<ImageSource, LayoutError> {
        let plan = Plan::new(image.manifest());
        let layout = layout_of(&plan)?;
        Ok(ImageSource {
            image,
            plan,
            layout,
        })
    }

    /// Number of blocks.
    pub fn block_count(&self) -> u32 {
        self.layout.len()
    }

    /// The name of the session's object: the image id.
    pub fn object_id(&self) -> ObjectId {
        ObjectId(self.image.id().0)
    }
}

impl BlockSource for ImageSource {
    fn preamble(&self) -> &[u8] {
        self.image.manifest_bytes()
    }

    fn layout(&self) -> &Layout {
        &self.layout
    }

    fn read_block(&mut self, block: BlockId, payload: &mut Vec<u8>) -> io::Result<()> {
        self.plan
            .frames(block.index())
            .iter()
            .try_for_each(|&frame| self.image.read_stored(frame, payload))
            .map_err(io::Error::other)
    }
}

/// What became of a deploy, shared with whoever waits for it.
#[derive(Clone, Debug, Default)]
pub struct DeployOutcome(Arc<Mutex<Option<DeployReport>>>);

impl DeployOutcome {
    /// The report, once the disk is committed.
    pub fn report(&self) -> Option<DeployReport> {
        let report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.clone()
    }

    fn set(&self, report: DeployReport) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(report);
    }
}

/// A disk as the place where blocks go.
///
/// ```text
/// Waiting ──begin──> Open ──settle──> Settling ──> Over (committed)
///    │                ^                   │
///    └─> Over         └── read back wrong ┘  a broken disk leads from everywhere to Over
/// ```
pub struct DeploySink {
    stage: Stage,
    options: DeployOptions,
    observer: DeployObserver,
    outcome: DeployOutcome,
    verdicts: VecDeque<Verdict>,
    failure: Option<String>,
}

enum Stage {
    Waiting(Target),
    Open(Box<Open>),
    Settling(JoinHandle<Result<Settled, DeployError>>),
    Over,
}

struct Open {
    deploy: Deploy,
    plan: Plan,
    /// Blocks delivered whose frames have not all been judged.
    pending: BTreeMap<u32, Pending>,
}

#[derive(Default)]
struct Pending {
    frames: usize,
    wrong: bool,
}

enum Settled {
    Committed(DeployReport),
    Wrong(Box<Open>, FrameSet),
}

impl DeploySink {
    /// A sink that writes to `target`.
    pub fn new(target: Target, options: DeployOptions, observer: DeployObserver) -> DeploySink {
        DeploySink {
            stage: Stage::Waiting(target),
            options,
            observer,
            outcome: DeployOutcome::default(),
            verdicts: VecDeque::new(),
            failure: None,
        }
    }

    /// Where the report will be.
    pub fn outcome(&self) -> DeployOutcome {
        self.outcome.clone()
    }

    fn fail(&mut self, error: &(dyn std::error::Error + 'static)) {
        self.stage = Stage::Over;
        self.failure.get_or_insert_with(|| error.to_string());
    }

    /// Turns what became of frames into verdicts about blocks.
    fn judge(&mut self) {
        let Stage::Open(open) = &mut self.stage else {
            return;
        };
        while let Some(outcome) = open.deploy.try_outcome() {
            let Some(block) = open.plan.block_of(outcome.frame) else {
                continue;
            };
            let Some(pending) = open.pending.get_mut(&block) else {
                continue;
            };
            pending.frames = pending.frames.saturating_sub(1);
            pending.wrong |= !outcome.written;
            if pending.frames == 0 {
                let verdict = if pending.wrong {
                    Verdict::Rejected(BlockId(block))
                } else {
                    Verdict::Accepted(BlockId(block))
                };
                open.pending.remove(&block);
                self.verdicts.push_back(verdict);
            }
        }
        if let Some(error) = open.deploy.failure() {
            self.fail(&error);
        }
    }

    fn finish_settling(&mut self) {
        if !matches!(&self.stage, Stage::Settling(thread) if thread.is_finished()) {
            return;
        }
        let Stage::Settling(thread) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return;
        };
        match thread.join() {
            Ok(Ok(Settled::Committed(report))) => {
                self.outcome.set(report);
                self.verdicts.push_back(Verdict::Settled);
            }
            Ok(Ok(Settled::Wrong(open, frames))) => {
                let wrong = blocks_of(&open.plan, &frames);
                self.verdicts
                    .extend(wrong.into_iter().map(Verdict::Rejected));
                self.verdicts.push_back(Verdict::Settled);
                self.stage = Stage::Open(open);
            }
            Ok(Err(error)) => self.fail(&error),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

impl BlockSink for DeploySink {
    fn begin(&mut self, preamble: &[u8], object: &ObjectId) -> Result<Start, SinkError> {
        let Stage::Waiting(target) = std::mem::replace(&mut self.stage, Stage::Over) else {
            return Err(SinkError("the disk is not free".to_owned()));
        };
        if ImageId::of(preamble).0 != object.0 {
            return Err(SinkError(
                "the manifest is not that of the image".to_owned(),
            ));
        }
        let manifest = Manifest::parse(preamble).map_err(refusal)?;
        let target = with_sectors_of(&manifest, target)?;
        let plan = Plan::new(&manifest);
        let layout = layout_of(&plan).map_err(refusal)?;
        let deploy = Deploy::begin(
            Arc::new(manifest),
            target,
            self.options.clone(),
            Arc::clone(&self.observer),
        )
        .map_err(refusal)?;
        let wanted = wanted_blocks(&plan, deploy.wanted());
        self.stage = Stage::Open(Box::new(Open {
            deploy,
            plan,
            pending: BTreeMap::new(),
        }));
        Ok(Start { layout, wanted })
    }

    fn deliver(&mut self, block: BlockId, payload: Vec<u8>) {
        let Stage::Open(open) = &mut self.stage else {
            return;
        };
        let frames = open.plan.frames(block.index()).to_vec();
        open.pending.insert(
            block.index(),
            Pending {
                frames: frames.len(),
                wrong: false,
            },
        );
        if let Err(error) = open.deploy.submit(frames, payload) {
            self.fail(&error);
        }
    }

    fn settle(&mut self) {
        if let Stage::Open(open) = std::mem::replace(&mut self.stage, Stage::Over) {
            self.stage = Stage::Settling(thread::spawn(move || settle(open)));
        }
    }

    fn poll_verdict(&mut self) -> Option<Verdict> {
        self.judge();
        self.finish_settling();
        self.verdicts.pop_front()
    }

    fn poll_failure(&mut self) -> Option<String> {
        self.failure.take()
    }

    fn reclaim(&mut self) -> Option<Vec<u8>> {
        match &mut self.stage {
            Stage::Open(open) => open.deploy.reclaim(),
            _ => None,
        }
    }

    fn backlog_bytes(&self) -> u64 {
        match &self.stage {
            Stage::Open(open) => open.deploy.backlog_bytes(),
            _ => 0,
        }
    }

    fn has_room(&self) -> bool {
        match &self.stage {
            Stage::Open(open) => open.deploy.room(),
            _ => false,
        }
    }
}

/// Flushes and reads back; commits when all is right.
fn settle(mut open: Box<Open>) -> Result<Settled, DeployError> {
    let wrong = open.deploy.settle()?;
    if wrong.is_empty() {
        Ok(Settled::Committed(open.deploy.commit()?))
    } else {
        Ok(Settled::Wrong(open, wrong))
    }
}

/// A file has no sector size of its own: it takes the image's.
fn with_sectors_of(manifest: &Manifest, target: Target) -> Result<Target, SinkError> {
    if !target.is_file() || target.sector_bytes() == manifest.sector_bytes() {
        return Ok(target);
    }
    let path = target.path().to_owned();
    drop(target);
    let options = TargetOptions {
        create: true,
        sector_bytes: Some(manifest.sector_bytes()),
        ..TargetOptions::default()
    };
    Target::open(&path, options).map_err(refusal)
}

fn layout_of(plan: &Plan) -> Result<Layout, LayoutError> {
    Layout::new(plan.blocks().iter().map(|block| block.bytes).collect())
}

/// A block is wanted while one of its frames is.
fn wanted_blocks(plan: &Plan, wanted: &FrameSet) -> Vec<bool> {
    let mut flags = vec![false; plan.blocks().len()];
    for block in blocks_of(plan, wanted) {
        flags[block.index() as usize] = true;
    }
    flags
}

fn blocks_of(plan: &Plan, frames: &FrameSet) -> Vec<BlockId> {
    let mut blocks: Vec<BlockId> = frames
        .iter()
        .filter_map(|frame: FrameId| plan.block_of(frame).map(BlockId))
        .collect();
    blocks.dedup();
    blocks
}

fn refusal(error: impl std::error::Error) -> SinkError {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some messages carry their cause already.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    SinkError(text)
}
