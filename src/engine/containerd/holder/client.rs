//! Whoever asks a holder.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    message::{Answer, Question},
    socket::{Packet, Socket},
};

/// A holder that does not answer within this is not there. It does at once, but on a node that is too busy for it: what it
/// has is worth that wait.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Client(Socket);

impl Client {
    /// `ConnectionRefused`: nobody listens there any more.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        Socket::connect(socket).map(Self)
    }

    /// Once this has returned it is held, also after this process.
    pub async fn put(&self, name: &str, end: BorrowedFd<'_>) -> io::Result<()> {
        match self.ask(Question::Put(name), Some(end)).await? {
            (Answer::Done, _) => Ok(()),
            (answer, _) => Err(strange(answer)),
        }
    }

    /// The very description that was given.
    pub async fn get(&self, name: &str) -> io::Result<Option<OwnedFd>> {
        match self.ask(Question::Get(name), None).await? {
            (Answer::Found, Packet { mut descriptors, is_whole: true, .. }) if descriptors.len() == 1 => {
                Ok(descriptors.pop())
            }
            (Answer::Found, _) => Err(io::Error::other("no descriptor came with the answer: none may be left here")),
            (Answer::Absent, _) => Ok(None),
            (answer, _) => Err(strange(answer)),
        }
    }

    /// It is no harm if there is none.
    pub async fn delete(&self, name: &str) -> io::Result<()> {
        match self.ask(Question::Delete(name), None).await? {
            (Answer::Done, _) => Ok(()),
            (answer, _) => Err(strange(answer)),
        }
    }

    /// All names.
    pub async fn list(&self) -> io::Result<Vec<String>> {
        let mut all: Vec<String> = Vec::new();
        loop {
            let after = all.last().map_or("", String::as_str);
            match self.ask(Question::List(after), None).await? {
                (Answer::Names(names), _) if names.is_empty() => return Ok(all),
                // In their order, or it would never end.
                (Answer::Names(names), _) if names.first().is_some_and(|first| first.as_str() > after) => {
                    all.extend(names);
                }
                (answer, _) => return Err(strange(answer)),
            }
        }
    }

    /// Waits until the holder has gone.
    pub async fn gone(&self) {
        // It says nothing unasked.
        while let Ok(Some(_)) = self.0.receive().await {}
    }

    async fn ask(&self, question: Question<'_>, descriptor: Option<BorrowedFd<'_>>) -> io::Result<(Answer, Packet)> {
        let asking = async {
            self.0.send(question.encode().as_bytes(), descriptor).await?;
            self.0.receive().await?.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))
        };
        let packet = timeout(ANSWERS_WITHIN, asking).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        let answer = Answer::parse(&packet.bytes).ok_or_else(|| io::Error::other("its answer is none"))?;
        Ok((answer, packet))
    }
}

fn strange(answer: Answer) -> io::Error {
    match answer {
        Answer::Refused(why) => io::Error::other(why),
        Answer::Done | Answer::Found | Answer::Absent | Answer::Names(_) => {
            io::Error::other(format!("its answer is to another question: {answer:?}"))
        }
    }
}
