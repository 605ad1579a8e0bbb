//! Both streams of an exec, as one.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt as _, future::BoxFuture};

use super::{
    pipe::{Filled, Pipe},
    room::Room,
};
use crate::engine::{Chunk, OutputSource};

pub struct Source {
    pipes: Vec<Pipe>,
    room: Arc<Room>,
    kept: Kept,
    /// Which has its turn.
    turn: usize,
    end: End,
}

/// For how long the backlog keeps what comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    UntilReleased,
    /// Nobody will: a part of it is missing anyway.
    UntilRead,
}

/// That all FIFOs are at their end is not the output's end: who copies into them may have been killed.
enum End {
    /// Answers when the command has ended in good order, as its engine says. Asked once all FIFOs are at their end.
    Asked(BoxFuture<'static, io::Result<()>>),
    Over,
}

impl Source {
    pub fn new(pipes: Vec<Pipe>, room: Arc<Room>, kept: Kept, ended: BoxFuture<'static, io::Result<()>>) -> Self {
        Self { pipes, room, kept, turn: 0, end: End::Asked(ended) }
    }

    /// Waits until one of them has something to read, and says which. `None`: the end.
    fn poll_some(&mut self, context: &mut Context<'_>) -> Poll<io::Result<Option<usize>>> {
        // Before it is looked whether there is any.
        self.room.waker.register(context.waker());
        let (mut open, mut lost) = (false, false);
        for turn in self.turn..self.turn + self.pipes.len() {
            let at = turn % self.pipes.len();
            match self.pipes[at].poll_fill(context, &self.room)? {
                Poll::Ready(Filled::Some) => return Poll::Ready(Ok(Some(at))),
                Poll::Ready(Filled::Over) => {}
                Poll::Ready(Filled::Lost) => lost = true,
                Poll::Ready(Filled::NoRoom) | Poll::Pending => open = true,
            }
        }
        match &mut self.end {
            _ if open => Poll::Pending,
            _ if lost => {
                let why = "the command's output ended while nobody read it: what it wrote last may be lost";
                Poll::Ready(Err(io::Error::other(why)))
            }
            End::Asked(ended) => ended.poll_unpin(context).map_ok(|()| {
                self.end = End::Over;
                None
            }),
            End::Over => Poll::Ready(Ok(None)),
        }
    }
}

impl OutputSource for Source {
    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        self.poll_some(context).map_ok(|some| some.is_some())
    }

    fn poll_next(&mut self, context: &mut Context<'_>, bytes: usize) -> Poll<io::Result<Option<Chunk>>> {
        self.poll_some(context).map(|some| match some? {
            Some(at) => {
                self.turn = at + 1;
                let chunk = self.pipes[at].next(bytes)?;
                if self.kept == Kept::UntilRead {
                    self.pipes[at].release_read(&self.room)?;
                }
                Ok(Some(chunk))
            }
            None => Ok(None),
        })
    }
}
