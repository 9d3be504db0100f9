//! Conversations that are kept between requests, so that nobody pays twice for the same prompt.
//!
//! What is kept is bounded in number and in bytes; beyond, the conversations unused for longest
//! are dropped. A request takes its conversation out and gives it back, so no lock is held while
//! the model runs, and two requests can't write into one cache.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::error::RequestError;
use crate::model::{KvCache, Token};

/// A name that a client has given to a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub(crate) struct SessionId(String);

impl SessionId {
    /// What a name may be.
    pub(crate) const ALLOWED: &str = "1 to 64 letters, digits, '.', '_' or '-' are allowed";
}

impl FromStr for SessionId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_allowed =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        match text.len() {
            1..=64 if text.bytes().all(is_allowed) => Ok(Self(text.into())),
            _ => Err(Self::ALLOWED),
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What the model remembers of a conversation.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    pub(crate) cache: KvCache,
    /// The last token of the last answer: it was said, and not yet read back.
    pub(crate) unread: Option<Token>,
}

impl Conversation {
    /// How many tokens have been said, on both sides.
    pub(crate) fn tokens(&self) -> usize {
        self.cache.tokens() + usize::from(self.unread.is_some())
    }
}

/// All conversations that are kept. A clone is another handle to the same.
#[derive(Debug, Clone)]
pub(crate) struct Sessions(Arc<Mutex<Table>>);

impl Sessions {
    /// Keeps so many conversations, and caches of so many bytes.
    pub(crate) fn new(count: usize, bytes: usize) -> Self {
        Self(Arc::new(Mutex::new(Table {
            entries: HashMap::new(),
            clock: 0,
            most_entries: count,
            most_bytes: bytes,
        })))
    }

    /// Takes a conversation out, or begins one.
    pub(crate) fn take(&self, id: SessionId) -> Result<Lease, RequestError> {
        let mut table = self.lock();
        let now = table.tick();
        let conversation = match table.entries.get_mut(&id) {
            None => Conversation::default(),
            Some(entry) => match entry.conversation.take() {
                Some(conversation) => conversation,
                None => return Err(RequestError::SessionBusy(id)),
            },
        };
        table.entries.insert(id.clone(), Entry::of(&conversation, now));
        let sessions = self.clone();
        Ok(Lease { conversation, place: Some(Place { sessions, id, taken: now }) })
    }

    /// Drops a conversation. One that is under way goes on to its end and is not kept then.
    pub(crate) fn remove(&self, id: &SessionId) -> Result<(), RequestError> {
        // The guard is gone at the end of this line, the conversation after it.
        let removed = self.lock().entries.remove(id);
        removed.map(drop).ok_or_else(|| RequestError::NoSession(id.clone()))
    }

    /// What there is, by name.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let table = self.lock();
        let mut list: Vec<_> = table
            .entries
            .iter()
            .map(|(id, entry)| Listed {
                id: id.clone(),
                tokens: entry.tokens,
                bytes: entry.bytes,
                busy: entry.conversation.is_none(),
            })
            .collect();
        list.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn give_back(&self, id: &SessionId, taken: u64, conversation: Conversation) {
        let mut table = self.lock();
        let now = table.tick();
        let dropped = match table.entries.get_mut(id).filter(|entry| entry.used == taken) {
            Some(entry) => {
                *entry = Entry::of(&conversation, now);
                entry.conversation = Some(conversation);
                table.evict()
            }
            // It was removed meanwhile.
            None => vec![conversation],
        };
        // Freeing megabytes takes its time, and others wait for the table.
        drop(table);
        drop(dropped);
    }

    fn forget(&self, id: &SessionId, taken: u64) {
        let mut table = self.lock();
        if table.entries.get(id).is_some_and(|entry| entry.used == taken) {
            table.entries.remove(id);
        }
    }

    /// A panic under the lock leaves a table that is still in order, so it is used on.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One conversation, as it is listed. Of a busy one, what it was when it was taken.
#[derive(Debug, Serialize)]
pub(crate) struct Listed {
    id: SessionId,
    tokens: usize,
    bytes: usize,
    busy: bool,
}

/// A conversation in the hands of one request. Dropped rather than given back, say by a panic, it
/// is forgotten: nobody knows what state it is in.
#[derive(Debug, Default)]
pub(crate) struct Lease {
    pub(crate) conversation: Conversation,
    /// None where it is not to be kept.
    place: Option<Place>,
}

impl Lease {
    /// Keeps the conversation for the next request.
    pub(crate) fn give_back(mut self) {
        if let Some(Place { sessions, id, taken }) = self.place.take() {
            sessions.give_back(&id, taken, std::mem::take(&mut self.conversation));
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(Place { sessions, id, taken }) = self.place.take() {
            sessions.forget(&id, taken);
        }
    }
}

/// Where a conversation belongs.
#[derive(Debug)]
struct Place {
    sessions: Sessions,
    id: SessionId,
    /// When it was taken; another moment is another conversation of the same name.
    taken: u64,
}

#[derive(Debug)]
struct Table {
    entries: HashMap<SessionId, Entry>,
    /// Counts what happens: later is larger, and no two things happen at once.
    clock: u64,
    most_entries: usize,
    most_bytes: usize,
}

#[derive(Debug)]
struct Entry {
    tokens: usize,
    bytes: usize,
    /// The moment when it was last taken or given back.
    used: u64,
    /// None while a request has it.
    conversation: Option<Conversation>,
}

impl Entry {
    /// What the table knows of a conversation that is elsewhere.
    fn of(conversation: &Conversation, used: u64) -> Self {
        let (tokens, bytes) = (conversation.tokens(), conversation.cache.bytes());
        Self { tokens, bytes, used, conversation: None }
    }
}

impl Table {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// Takes out what is too much, the conversations unused for longest first. Those that a request
    /// has can't be; they are few, because few requests are admitted.
    fn evict(&mut self) -> Vec<Conversation> {
        let mut evicted = Vec::new();
        while self.entries.len() > self.most_entries || self.bytes() > self.most_bytes {
            let idle = self.entries.iter().filter(|(_, entry)| entry.conversation.is_some());
            let oldest = idle.min_by_key(|(_, entry)| entry.used).map(|(id, _)| id.clone());
            let Some(entry) = oldest.and_then(|id| self.entries.remove(&id)) else { break };
            evicted.extend(entry.conversation);
        }
        evicted
    }

    fn bytes(&self) -> usize {
        self.entries.values().map(|entry| entry.bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of a token in a cache of one layer.
    const TOKEN: usize = 2 * 256 * 4;

    #[test]
    fn a_conversation_goes_on_where_it_was() {
        let sessions = Sessions::new(4, 1 << 20);
        say(&sessions, "a", 3);
        let lease = sessions.take(id("a")).expect("idle");
        assert_eq!(lease.conversation.tokens(), 3);
        lease.give_back();
        assert_eq!(listed(&sessions), ["a 3"]);
    }

    #[test]
    fn two_requests_do_not_write_into_one_cache() {
        let sessions = Sessions::new(4, 1 << 20);
        let lease = sessions.take(id("a")).expect("idle");
        let error = sessions.take(id("a")).expect_err("busy").to_string();
        assert!(error.contains("session a is busy"), "{error}");
        lease.give_back();
        sessions.take(id("a")).expect("idle again").give_back();
    }

    #[test]
    fn the_ones_unused_for_longest_make_room() {
        let sessions = Sessions::new(3, 1 << 20);
        for name in ["a", "b", "c"] {
            say(&sessions, name, 1);
        }
        say(&sessions, "a", 1);
        say(&sessions, "d", 1);
        assert_eq!(listed(&sessions), ["a 2", "c 1", "d 1"]);
    }

    #[test]
    fn bytes_are_bounded_too() {
        let sessions = Sessions::new(100, 10 * TOKEN);
        say(&sessions, "a", 4);
        say(&sessions, "b", 4);
        assert_eq!(listed(&sessions), ["a 4", "b 4"]);
        say(&sessions, "c", 4);
        assert_eq!(listed(&sessions), ["b 4", "c 4"]);
        // Larger than all that is allowed: not even the newest is kept.
        say(&sessions, "d", 11);
        assert_eq!(listed(&sessions), [""; 0]);
    }

    #[test]
    fn one_that_is_busy_is_not_evicted() {
        let sessions = Sessions::new(1, 1 << 20);
        let lease = sessions.take(id("a")).expect("idle");
        say(&sessions, "b", 1);
        assert_eq!(listed(&sessions), ["a 0 busy"]);
        lease.give_back();
        assert_eq!(listed(&sessions), ["a 0"]);
    }

    #[test]
    fn one_that_is_removed_while_busy_is_not_kept() {
        let sessions = Sessions::new(4, 1 << 20);
        let lease = sessions.take(id("a")).expect("idle");
        sessions.remove(&id("a")).expect("there");
        // Begun anew under the same name: the first may not take its place.
        say(&sessions, "a", 5);
        lease.give_back();
        assert_eq!(listed(&sessions), ["a 5"]);
        sessions.remove(&id("a")).expect("there");
        let error = sessions.remove(&id("a")).expect_err("gone").to_string();
        assert!(error.contains("no session a"), "{error}");
    }

    #[test]
    fn one_that_is_dropped_is_forgotten() {
        let sessions = Sessions::new(4, 1 << 20);
        say(&sessions, "a", 2);
        drop(sessions.take(id("a")).expect("idle"));
        assert_eq!(listed(&sessions), [""; 0]);
    }

    #[test]
    fn names_are_short_and_plain() {
        for good in ["a", "A.b_c-9", &"x".repeat(64)] {
            assert!(good.parse::<SessionId>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "\u{e4}", &"x".repeat(65)] {
            assert!(bad.parse::<SessionId>().is_err(), "{bad}");
        }
    }

    fn id(name: &str) -> SessionId {
        name.parse().expect("a name")
    }

    /// One request, of so many tokens.
    fn say(sessions: &Sessions, name: &str, tokens: usize) {
        let mut lease = sessions.take(id(name)).expect("idle");
        for layer in lease.conversation.cache.layers_mut(1) {
            let rows = vec![0.0; tokens * 256];
            layer.append(&rows, &rows);
        }
        lease.give_back();
    }

    fn listed(sessions: &Sessions) -> Vec<String> {
        let describe = |listed: Listed| {
            let busy = if listed.busy { " busy" } else { "" };
            format!("{} {}{busy}", listed.id, listed.tokens)
        };
        sessions.list().into_iter().map(describe).collect()
    }
}
