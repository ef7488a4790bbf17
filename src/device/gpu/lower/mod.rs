//! Operations to launches: each appends its own; this collects them and hands out scratch memory.
//!
//! Lowering is a function of the operation, the types of its buffers and the GPU's description alone, so the
//! same run gives the same launches.

mod put_off;

use anyhow::{Result, ensure};

use super::branches::{Place, Placing, Used};
use super::driver::Gpu;
use super::exchange::Exchange;
use super::launch::{Address, KernelOf, Launch, Parameters};
use super::tiles::{Decision, Times};
use super::work::{Span, Work};
use crate::collective::Share;
use crate::device::operation::Access;
use crate::device::{Buffer, Element, Operation, Tensor};
use crate::usage;
use put_off::PutOff;
pub use put_off::Waiting;

/// Launches being collected.
pub struct Lowering<'a> {
    gpu: &'a Gpu,
    buffers: &'a [Buffer],
    addresses: &'a [u64],
    /// Workspace of the operations being lowered, bytes.
    used: usize,
    /// The most workspace that operations of the main branch use, and those aside: a region for each.
    most_used: [usize; 2],
    launches: Vec<Launch>,
    put_off: Vec<PutOff>,
    /// Whether operations that may run aside do.
    branches: bool,
    placing: Placing,
    uses: Vec<Option<usize>>,
    /// The operation that launches are appended for.
    operation: &'static str,
    /// Which of the GPUs that do exchanges this one is, if there are any.
    share: Option<Share>,
    /// The measured times by which is chosen among launches that do the same; by the model without them.
    times: Option<&'a Times>,
    /// What was chosen among, if that is kept.
    decisions: Option<Vec<Decision>>,
}

impl<'a> Lowering<'a> {
    /// Lowers over tensors in `buffers` at device addresses `addresses`.
    pub fn new(gpu: &'a Gpu, buffers: &'a [Buffer], addresses: &'a [u64]) -> Self {
        Self {
            gpu,
            buffers,
            addresses,
            used: 0,
            most_used: [0; 2],
            launches: Vec::new(),
            put_off: Vec::new(),
            branches: false,
            placing: Placing::default(),
            uses: Vec::new(),
            operation: "",
            share: None,
            times: None,
            decisions: None,
        }
    }

    /// Lowers over the same tensors, apart from this: to look at launches that are perhaps not made.
    pub fn apart(&self) -> Self {
        Self { operation: self.operation, ..Self::new(self.gpu, self.buffers, self.addresses) }
    }

    /// The launches so far, where nothing is to run.
    pub fn into_launches(self) -> Vec<Launch> {
        self.launches
    }

    /// Bytes of workspace that the launches of the operations being lowered use so far.
    pub fn workspace_used(&self) -> usize {
        self.used
    }

    /// With measured times, by which is chosen where all that a choice is among have one.
    pub fn with_times(self, times: Option<&'a Times>) -> Self {
        Self { times, ..self }
    }

    /// Keeps what is chosen among ([`Lowering::take_decisions`]), if `keep`.
    pub fn keeping_decisions(self, keep: bool) -> Self {
        Self { decisions: keep.then(Vec::new), ..self }
    }

    /// What was chosen among since the last call, where that is kept.
    pub fn take_decisions(&mut self) -> Vec<Decision> {
        self.decisions.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Which of the ways of a decision is taken.
    pub fn decide(&mut self, decision: Decision) -> usize {
        let taken = decision.taken(self.times);
        if let Some(decisions) = &mut self.decisions {
            decisions.push(Decision { operation: self.operation, ..decision });
        }
        taken
    }

    /// With how often the operations of the program name each tensor; `None` for those whose values outlive
    /// it.
    pub fn with_uses(self, uses: Vec<Option<usize>>) -> Self {
        Self { uses, ..self }
    }

    /// With operations that may run aside on a branch of their own, if `branches`.
    pub fn with_branches(self, branches: bool) -> Self {
        Self { branches, ..self }
    }

    /// With exchanges between GPUs, of which this one is `share`'s; without this call an operation that needs
    /// one cannot be lowered, and what is the same for one GPU needs none.
    pub fn with_share(self, share: Option<Share>) -> Self {
        Self { share, ..self }
    }

    /// Which of the GPUs this one is.
    pub fn share(&self) -> Share {
        self.share.unwrap_or_default()
    }

    /// Whether a tensor is named by no more than two operations of the program and read by nothing else, so
    /// that two that one kernel does together need not write it.
    pub fn is_only_between(&self, tensor: Tensor) -> bool {
        self.uses.get(tensor.0) == Some(&Some(2))
    }

    /// The GPU that is lowered for.
    pub fn gpu(&self) -> &Gpu {
        self.gpu
    }

    /// Device address of a tensor.
    pub fn address(&self, tensor: Tensor) -> Address {
        Address::Device(self.addresses[tensor.0])
    }

    /// Device address of a tensor that may be missing: null then.
    pub fn optional(&self, tensor: Option<Tensor>) -> Address {
        tensor.map_or(Address::NULL, |tensor| self.address(tensor))
    }

    /// Type of a tensor's elements.
    pub fn element(&self, tensor: Tensor) -> Element {
        self.buffers[tensor.0].element
    }

    /// Elements of a tensor.
    pub fn len(&self, tensor: Tensor) -> usize {
        self.buffers[tensor.0].len
    }

    /// The memory of a tensor, whole.
    pub fn span(&self, tensor: Tensor) -> Span {
        Span::new(self.address(tensor), self.len(tensor) * self.element(tensor).bytes())
    }

    /// The memory of a tensor that may be missing: none then.
    pub fn optional_span(&self, tensor: Option<Tensor>) -> Option<Span> {
        tensor.map(|tensor| self.span(tensor))
    }

    /// What operations that are one launch do: each operand is read or written once, what one writes and
    /// another reads stays in the kernel.
    pub fn work_of(&self, operations: &[&dyn Operation]) -> Work {
        let mut work = Work::of(operations.iter().map(|operation| operation.flops()).sum());
        for operand in operations.iter().flat_map(|operation| operation.operands()) {
            let elements = operand.touched.unwrap_or_else(|| self.len(operand.tensor));
            let bytes = elements * self.element(operand.tensor).bytes();
            let span = Span::new(self.address(operand.tensor), bytes);
            let is_new = |spans: &[Span]| spans.iter().all(|other| other.address != span.address);
            let (reads, writes) = (operand.access != Access::Write, operand.access != Access::Read);
            if reads && is_new(&work.reads) && is_new(&work.writes) {
                work = work.reading([span]);
            }
            if writes && is_new(&work.writes) {
                work = work.writing([span]);
            }
        }
        work
    }

    /// A launch that is all of the operations, the only one from `first` on, does what their operands say,
    /// unless its lowering has said more exactly what it does.
    fn complete(&mut self, first: usize, operations: &[&dyn Operation]) {
        if self.launches.len() == first + 1 && self.launches[first].work.is_none() {
            self.launches[first].work = Some(Box::new(self.work_of(operations)));
        }
    }

    /// The launches that follow are `operation`'s: for two operations that are lowered together.
    pub fn begin(&mut self, operation: &dyn Operation) {
        self.operation = operation.name();
    }

    /// Scratch memory, 256-byte aligned, contents undefined, for the launches of the operations lowered
    /// together: given to others after them.
    pub fn workspace(&mut self, bytes: usize) -> Address {
        let address = Address::Workspace(self.used);
        self.used += bytes.next_multiple_of(256);
        address
    }

    /// Appends a launch.
    pub fn launch(&mut self, launch: Launch) {
        self.launches.push(Launch { operation: self.operation, ..launch });
    }

    /// Appends launches as they are.
    pub fn launch_all(&mut self, launches: &[Launch]) {
        self.launches.extend_from_slice(launches);
    }

    /// Appends an exchange with other GPUs.
    ///
    /// # Errors
    /// Where there are none.
    pub fn exchange(&mut self, exchange: Exchange) -> Result<()> {
        ensure!(self.share.is_some(), "'{}' needs an exchange between GPUs", self.operation);
        self.launch(exchange.launch());
        Ok(())
    }

    /// Gathers as many bytes of each GPU, one after the other; where there is none but this one, they stay
    /// where they are.
    ///
    /// # Errors
    /// As [`Lowering::exchange`].
    pub fn gather_equal(&mut self, own: Address, bytes: usize) -> Result<Address> {
        let Some(share) = self.share else { return Ok(own) };
        let all = self.workspace(share.size * bytes);
        self.exchange(Exchange::Gather { own, all, bytes: vec![bytes; share.size] })?;
        Ok(all)
    }

    /// Appends a launch of blocks of `threads` over flat arrays of `len` elements, `each` of them per thread;
    /// none where there are no elements.
    pub fn launch_over<P: Parameters>(
        &mut self,
        kernel: KernelOf<P>,
        [threads, each]: [usize; 2],
        len: usize,
        parameters: P,
    ) {
        if len > 0 {
            self.launch(kernel.linear(len.div_ceil(each).div_ceil(threads), threads, parameters));
        }
    }

    /// Lowers `operations` in order; neighbours of the same branch that one kernel does together are lowered
    /// together.
    ///
    /// # Errors
    /// Where a shape is beyond what the kernels do.
    pub fn lower(&mut self, operations: &[&dyn Operation]) -> Result<()> {
        let mut rest = operations;
        while let [first, after @ ..] = rest {
            let (before, aside) = (self.launches.len(), self.branches && first.runs_aside());
            let older = self.put_off.len();
            self.begin(*first);
            let neighbour = after.first().filter(|next| aside == (self.branches && next.runs_aside()));
            let together = match neighbour {
                Some(next) => first.lower_with(*next, self)?,
                None => false,
            };
            if !together {
                first.lower(self)?;
            }
            let (done, left) = rest.split_at(1 + usize::from(together));
            self.complete(before, done);
            self.place(before, older, done, aside);
            rest = left;
        }
        self.make_up(self.launches.len(), self.put_off.len(), None);
        let beyond = |launch: &Launch| Some((launch.kernel.name, launch.arguments.beyond()?));
        match self.launches.iter().find_map(beyond) {
            None => Ok(()),
            Some((kernel, count)) => Err(usage!(
                "the kernel {kernel} is to count to {count}, kernels count to 2147483647; take a smaller --batch-size, --width or --image-size"
            )),
        }
    }

    /// Gives the launches from `before` on, which do the operations `done`, their place, behind those that they
    /// need of the first `older` that were put off.
    fn place(&mut self, before: usize, older: usize, done: &[&dyn Operation], aside: bool) {
        let done_besides = self.take_done();
        let older = older - done_besides.len();
        let used = done_besides.into_iter().fold(Used::by(done, self.buffers), Used::and);
        let before = self.make_up(before, older, Some(&used));
        let aside = self.placing.place(used, self.launches.len() - before, aside);
        let most = &mut self.most_used[usize::from(aside)];
        *most = std::mem::take(&mut self.used).max(*most);
    }

    /// What may run beside what: a place for each launch of the operations lowered so far.
    pub fn places(&self) -> &[Place] {
        self.placing.places()
    }

    /// The launches, and the bytes of workspace they need: each is to be told where that lies
    /// ([`Launch::place_workspace`]).
    pub fn finish(mut self) -> (Vec<Launch>, usize) {
        let [main, aside] = self.most_used;
        let main = main.max(self.used);
        for (launch, place) in self.launches.iter_mut().zip(self.placing.places()) {
            launch.shift_workspace(if place.aside { main } else { 0 });
        }
        (self.launches, main + aside)
    }
}
