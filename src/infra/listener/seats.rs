//! Seats for connections. A connection is a stranger's until it is admitted. Where strangers are too many, an older one
//! is ended: a flood of half-open connections keeps nobody out whose handshake takes milliseconds.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

#[derive(Clone, Debug)]
pub(crate) struct Seats {
    taken: Arc<Mutex<Taken>>,
    most: usize,
    most_strangers: usize,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    /// By address, the oldest first.
    strangers: HashMap<IpAddr, BTreeMap<u64, CancellationToken>>,
    admitted: HashSet<u64>,
}

/// The seat of one connection, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    of: Seats,
    address: IpAddr,
    number: u64,
}

impl Seats {
    pub(crate) fn new(most: usize, most_strangers: usize) -> Self {
        Self { taken: Arc::default(), most, most_strangers }
    }

    /// Seats a stranger; none if those admitted have all seats. If strangers are too many, the oldest of the address
    /// that has the most of them loses its seat, which its token tells.
    pub(crate) fn enter(&self, address: IpAddr) -> Option<(Seat, CancellationToken)> {
        let mut taken = self.taken.lock();
        let room = self.most.saturating_sub(taken.admitted.len()).min(self.most_strangers);
        if room == 0 {
            return None;
        }
        let (number, crowded) = (taken.next, CancellationToken::new());
        taken.next += 1;
        taken.strangers.entry(address).or_default().insert(number, crowded.clone());
        if taken.strangers() > room {
            taken.evict_one();
        }
        Some((Seat { of: self.clone(), address, number }, crowded))
    }

    pub(crate) fn taken(&self) -> usize {
        let taken = self.taken.lock();
        taken.strangers() + taken.admitted.len()
    }
}

impl Taken {
    fn strangers(&self) -> usize {
        self.strangers.values().map(BTreeMap::len).sum()
    }

    fn evict_one(&mut self) {
        // Among several such addresses, the oldest of all.
        let crowd = |(_, of): &(&IpAddr, &BTreeMap<u64, _>)| (of.len(), Reverse(of.keys().next().copied()));
        let Some((&address, of)) = self.strangers.iter().max_by_key(crowd) else { return };
        if let Some(&oldest) = of.keys().next()
            && let Some(crowded) = self.leave(address, oldest)
        {
            crowded.cancel();
        }
    }

    fn leave(&mut self, address: IpAddr, number: u64) -> Option<CancellationToken> {
        let of = self.strangers.get_mut(&address)?;
        let stranger = of.remove(&number);
        if of.is_empty() {
            self.strangers.remove(&address);
        }
        stranger
    }
}

impl Seat {
    /// From now on it cannot be lost.
    pub(crate) fn admit(&self) {
        let mut taken = self.of.taken.lock();
        if taken.leave(self.address, self.number).is_some() {
            taken.admitted.insert(self.number);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.of.taken.lock();
        taken.admitted.remove(&self.number);
        taken.leave(self.address, self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    /// Which of them were ended.
    fn ended(seats: &[(Seat, CancellationToken)]) -> Vec<usize> {
        (0..seats.len()).filter(|at| seats[*at].1.is_cancelled()).collect()
    }

    #[test]
    fn one_stranger_too_many_ends_the_oldest_of_the_greatest_crowd() {
        let seats = Seats::new(10, 4);
        let enter = |last| seats.enter(address(last)).expect("a seat");
        let mut all = vec![enter(1), enter(2), enter(2), enter(3)];
        assert_eq!(ended(&all), [0; 0]);
        all.push(enter(4));
        assert_eq!(ended(&all), [1], "neither the oldest nor the newest of all");
        all.push(enter(4));
        assert_eq!(ended(&all), [1, 4], "whoever comes often pays for it");
        all.push(enter(5));
        assert_eq!(ended(&all), [0, 1, 4], "the oldest, where none has more than another");
        assert_eq!(seats.taken(), 4);
        drop(all);
        assert_eq!(seats.taken(), 0);
        assert!(seats.taken.lock().strangers.is_empty(), "no address is kept");
    }

    #[test]
    fn whoever_is_admitted_keeps_the_seat_and_strangers_get_what_is_left() {
        let seats = Seats::new(3, 2);
        let enter = |last| seats.enter(address(last)).expect("a seat");
        let mut all = vec![enter(1), enter(1)];
        for (seat, _) in &all {
            seat.admit();
        }
        all.extend([enter(1), enter(2), enter(2)]);
        assert_eq!(ended(&all), [2, 3], "one seat is left for strangers");
        all[4].0.admit();
        assert!(seats.enter(address(3)).is_none(), "all seats are taken for good");
        all[2].0.admit();
        assert_eq!(seats.taken(), 3, "who was ended comes no more");
        all.remove(0);
        assert_eq!(seats.taken(), 2);
        assert!(seats.enter(address(3)).is_some());
    }
}
