//! Following a batch to its end, or to the limit that somebody has to raise.
//!
//! What is seen on the way comes from two watches, which are opened again whenever they break. The end comes from the batch
//! alone, and what of its requests was not seen by then is read.

use std::{pin::pin, sync::Arc, time::Duration};

use futures::StreamExt as _;
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt as _, runtime::watcher};
use tokio::{
    signal::unix::SignalKind,
    sync::watch::Receiver,
    time::{Instant, sleep_until},
};

use super::{
    asked::{self, Choice},
    children::{self, Children},
    gathered,
    report::{self, left},
    stage::Stage,
    view::View,
    words,
};
use crate::{
    api::{ExecBatch, ExecBatchStatus, ExecRequest},
    cli::{
        cluster::connection::Cluster,
        error::Error,
        exit::Exit,
        follow::{
            signals::{self, Stops},
            watched::{Reached, Watched},
        },
        say::{
            speech::Speech,
            terminal::{self, Size},
        },
    },
    core::batch::end::End,
};

/// Between two drawings of the view.
const BETWEEN: Duration = Duration::from_millis(100);

pub async fn follow(cluster: &Cluster, batch: ExecBatch, speech: &Speech, group: bool) -> Result<Exit, Error> {
    let mut stops = Stops::listen()?;
    let (sizes, _resized) = signals::sizes(true)?;
    let stage = Stage::new(speech, group);
    Following::of(cluster, batch, stage).run(async || stops.next().await, sizes).await
}

struct Following<'a> {
    cluster: &'a Cluster,
    watched: Watched<ExecBatch>,
    children: Children,
    stage: Stage,
    /// Whoever sits here has asked for its end.
    canceled: bool,
    /// That its requests cannot be seen was said.
    blind: bool,
    /// For which reason it was said to wait for somebody.
    waits: Option<&'static str>,
    drawn: Option<Instant>,
    /// There is something new to draw.
    dirty: bool,
}

impl<'a> Following<'a> {
    fn of(cluster: &'a Cluster, batch: ExecBatch, stage: Stage) -> Self {
        let children = Children::of(&batch.uid().unwrap_or_default());
        let watched = Watched::new(cluster, batch, &stage.speech);
        Self {
            cluster,
            watched,
            children,
            stage,
            canceled: false,
            blind: false,
            waits: None,
            drawn: None,
            dirty: false,
        }
    }

    async fn run(
        mut self,
        mut next: impl AsyncFnMut() -> SignalKind,
        mut sizes: Receiver<Option<Size>>,
    ) -> Result<Exit, Error> {
        let uid = self.watched.last().uid().unwrap_or_default();
        let mut changes = pin!(children::watch(self.cluster, &uid));
        loop {
            if let Some(exit) = self.look().await? {
                return Ok(exit);
            }
            let due = self.drawn.map_or_else(Instant::now, |drawn| drawn + BETWEEN);
            tokio::select! {
                () = self.watched.change() => {}
                () = sleep_until(due), if self.dirty => {}
                Some(child) = changes.next() => self.child(child)?,
                Ok(()) = sizes.changed() => self.drawn = None,
                signal = next() => {
                    if let Some(exit) = self.interrupted(signal, &mut next).await? {
                        return Ok(exit);
                    }
                }
            }
        }
    }

    /// Takes in what the batch is now, and shows it; gives the exit code if it is over.
    async fn look(&mut self) -> Result<Option<Exit>, Error> {
        let look = self.watched.look();
        let batch = look.object().clone();
        self.plan(&batch)?;
        if words::is_finished(&batch) || words::is_at_its_limit(&batch) {
            return self.conclude(&batch).await.map(Some);
        }
        if let Some((sentence, exit)) = look.gone().and_then(|reached| gone(&reached)) {
            self.stage.say(&sentence);
            return Ok(Some(exit));
        }
        if self.stage.closed {
            let left = left(self.cluster, &batch);
            self.stage.say(&format!("the output was closed; {left}"));
            return Ok(Some(Exit::LEFT));
        }
        self.say_what_it_waits_for(&batch);
        let trouble = look.trouble().inspect_err(|_| self.stage.clear())?;
        self.dirty = self.drawn.is_some_and(|drawn| drawn.elapsed() < BETWEEN);
        if !self.dirty {
            let view = View { batch: &batch, children: &self.children, trouble, now: Timestamp::now() };
            self.stage.draw(&view);
            self.drawn = Some(Instant::now());
        }
        Ok(None)
    }

    /// It goes on only once somebody has done something: where there is no view nothing else would say so.
    fn say_what_it_waits_for(&mut self, batch: &ExecBatch) {
        let reason = words::waits_for_somebody(batch);
        if std::mem::replace(&mut self.waits, reason) != reason && reason.is_some() && !self.stage.is_live() {
            let next = report::next(batch, |verb| self.cluster.plugin(verb));
            self.stage.say(&format!("{} waits: {}; {next}", words::typed(batch), words::state(batch)));
        }
    }

    /// From when on it is known which requests count.
    fn plan(&mut self, batch: &ExecBatch) -> Result<(), Error> {
        let Some(plan) = batch.status.as_ref().and_then(words::frozen) else { return Ok(()) };
        for child in self.children.count_only(plan) {
            self.ended(&child)?;
        }
        Ok(())
    }

    fn child(&mut self, told: Result<ExecRequest, watcher::Error>) -> Result<(), Error> {
        match told {
            Ok(child) => match self.children.see(child) {
                Some(child) => self.ended(&child),
                None => Ok(()),
            },
            Err(error) => {
                // Whatever passes, the watch of the batch tells of, too.
                if children::is_refused(&error) && !std::mem::replace(&mut self.blind, true) {
                    self.stage.say(&format!("its requests cannot be seen: {error}"));
                }
                Ok(())
            }
        }
    }

    fn ended(&mut self, child: &ExecRequest) -> Result<(), Error> {
        let Some(index) = child.spec.batch.as_ref().map(|place| place.index) else { return Ok(()) };
        let Some(ended) = u16::try_from(index).ok().and_then(|index| self.children.ended.get(&index)) else {
            return Ok(());
        };
        let released = self.watched.last().status.as_ref().map_or(0, |status| status.released);
        let of_many = ended.end == End::NotRun && index >= released;
        self.stage.ended(self.cluster, child, ended, of_many)
    }

    /// A signal: asks what is to become of the batch where somebody can be asked; gives the exit code to leave with.
    async fn interrupted(
        &mut self,
        signal: SignalKind,
        mut next: impl AsyncFnMut() -> SignalKind,
    ) -> Result<Option<Exit>, Error> {
        let batch = self.watched.last();
        let can_ask = self.stage.is_live() && terminal::is_free() && !self.canceled;
        if signal != SignalKind::interrupt() || !can_ask {
            return Ok(Some(self.leave(&batch, signal)));
        }
        self.stage.ask(Choice::QUESTION)?;
        let choice = tokio::select! {
            answer = asked::line() => Choice::of(&answer.unwrap_or_default()),
            signal = next() => return Ok(Some(self.leave(&batch, signal))),
            () = over(&mut self.watched) => Choice::GoOn,
        };
        self.drawn = None;
        match choice {
            Choice::GoOn => Ok(None),
            Choice::Leave => Ok(Some(self.leave(&batch, signal))),
            Choice::Cancel => {
                let name = batch.name_any();
                let canceled = tokio::select! {
                    canceled = self.cluster.cancel_batch(&name) => canceled,
                    signal = next() => return Ok(Some(self.leave(&batch, signal))),
                };
                match canceled {
                    Ok(_) => {
                        self.canceled = true;
                        self.stage
                            .say(&format!("canceling xb/{name}; press Ctrl-C to leave without waiting for its end"));
                    }
                    // It had finished: the outcome comes in a moment.
                    Err(error) if error.answer() == Some(422) => {}
                    Err(error) => self.stage.say(&format!("{error}; xb/{name} goes on")),
                }
                Ok(None)
            }
        }
    }

    fn leave(&mut self, batch: &ExecBatch, signal: SignalKind) -> Exit {
        let left = left(self.cluster, batch);
        self.stage.say(&left);
        if signal == SignalKind::interrupt() { Exit::LEFT } else { Exit::of_signal(signal) }
    }

    /// It has finished, or waits for a higher limit.
    async fn conclude(&mut self, batch: &Arc<ExecBatch>) -> Result<Exit, Error> {
        let empty = ExecBatchStatus::default();
        let status = batch.status.as_ref().unwrap_or(&empty);
        if words::frozen(status).is_some() {
            self.read_the_rest(batch).await?;
            if self.stage.is_group() {
                self.show_groups(status).await?;
            }
        }
        let exit = match Exit::of_batch(status) {
            Some(exit) => exit,
            None => so_far(status),
        };
        if exit != Exit::SUCCESS || !words::is_finished(batch) || !self.stage.speech.is_quiet() {
            for sentence in report::sentences(batch, &self.children, |verb| self.cluster.plugin(verb)) {
                self.stage.say(&sentence);
            }
        }
        Ok(exit)
    }

    /// What the watch has not told.
    async fn read_the_rest(&mut self, batch: &ExecBatch) -> Result<(), Error> {
        let mut rest = Vec::new();
        let read = self.cluster.children(batch, |child| {
            rest.extend(self.children.see(child));
        });
        if let Err(error) = read.await {
            self.stage.say(&format!("{error}; not all of what came of its targets is shown"));
        }
        for child in rest {
            self.ended(&child)?;
        }
        Ok(())
    }

    async fn show_groups(&mut self, status: &ExecBatchStatus) -> Result<(), Error> {
        let grouped = gathered::groups(&self.children, &report::ledger(status));
        let mut largest: Option<(ExecRequest, String)> = None;
        for group in &grouped.groups {
            let members = gathered::members(group, &self.children);
            let example = self.cluster.get(&group.example).await;
            let against = largest.as_ref().map(|(request, who)| (request, who.as_str()));
            let page = gathered::page(self.stage.blank(), group, &members, example.as_ref(), against);
            self.stage.page(&page)?;
            if largest.is_none() {
                largest = example.ok().map(|example| (example, members));
            }
        }
        if grouped.others > 0 {
            let others = grouped.others;
            self.stage
                .say(&format!("{others} targets are in no group: theirs are smaller, or their requests are gone"));
        }
        Ok(())
    }
}

/// The exit code of a batch that waits for a higher limit: a preview has done what was asked.
fn so_far(status: &ExecBatchStatus) -> Exit {
    match Exit::so_far(status) {
        Some(exit) => exit,
        None if status.not_run.count > 0 => Exit::NEVER_RAN,
        None => Exit::SUCCESS,
    }
}

/// What is known of a batch that is gone; `None` if it had finished, or is there.
pub fn gone(reached: &Reached<ExecBatch>) -> Option<(String, Exit)> {
    match reached {
        Reached::Here(_) => None,
        Reached::Deleted(batch) if words::is_finished(batch) => None,
        Reached::Deleted(batch) => {
            let name = words::typed(batch);
            // Nobody can release more of what is not there.
            let released = batch.status.as_ref().map_or(0, |status| status.released);
            Some(if released == 0 {
                (
                    format!("{name} was deleted before anything was released: nothing ran, and nothing will"),
                    Exit::NEVER_RAN,
                )
            } else {
                let ran = "that ends its commands; check what they did before you run it again";
                (format!("{name} was deleted before it finished: {ran}"), Exit::UNKNOWN)
            })
        }
        Reached::Vanished(batch) => Some((
            format!(
                "{} is gone, and how it ended was not seen: it was deleted while the API server was not heard from. Its \
                 commands may have run: check before you run it again",
                words::typed(batch)
            ),
            Exit::UNKNOWN,
        )),
    }
}

/// Waits until there is no question any more.
async fn over(watched: &mut Watched<ExecBatch>) {
    loop {
        let look = watched.look();
        if words::is_finished(look.object()) || look.gone().is_some() {
            return;
        }
        watched.change().await;
    }
}

#[cfg(test)]
#[path = "follow_tests.rs"]
mod tests;
