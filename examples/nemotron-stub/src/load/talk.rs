//! What the load says: several conversations at once, each of a bounded length.
//!
//! Names and sentences come from a seed, so that every run is the same.

use crate::rng::Rng;

/// One request of the load.
#[derive(Debug, PartialEq)]
pub(crate) struct Turn {
    /// The conversation that it belongs to.
    pub(crate) session: String,
    pub(crate) prompt: String,
    /// Whether it is the last one of its conversation.
    pub(crate) ends: bool,
}

/// An endless talk.
#[derive(Debug)]
pub(crate) struct Talk {
    rng: Rng,
    /// How many turns each conversation still has.
    left: [u32; CONVERSATIONS],
    next: usize,
}

impl Talk {
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::new(seed), left: [0; CONVERSATIONS], next: 0 }
    }

    /// The next turn of the next conversation.
    pub(crate) fn turn(&mut self) -> Turn {
        let session = format!("load-{}", self.next);
        let left = &mut self.left[self.next];
        self.next = (self.next + 1) % CONVERSATIONS;
        if *left == 0 {
            *left = SHORTEST + (self.rng.bits() % u64::from(LONGEST - SHORTEST + 1)) as u32;
        }
        *left -= 1;
        let ends = *left == 0;
        let prompt = (0..1 + self.rng.bits() % 3).map(|_| sentence(&mut self.rng)).collect();
        Turn { session, prompt, ends }
    }
}

/// How many conversations take turns.
const CONVERSATIONS: usize = 6;
/// Turns of a conversation. The longest must fit what a session may hold.
const SHORTEST: u32 = 3;
const LONGEST: u32 = 12;

const ASKS: [&str; 6] = [
    "Please explain",
    "Please describe",
    "Write a short list of the words for",
    "Tell the story of",
    "What is good about",
    "Compare the first answer with what you know of",
];
const THINGS: [&str; 8] = [
    "the cache",
    "the river and the mill",
    "a request that waits in the queue",
    "the lighthouse",
    "the scheduler",
    "a profile",
    "the last conversation",
    "memory",
];
const ENDS: [&str; 5] =
    [".", " in a few words.", " for somebody who was not there.", ", and say why.", " once more?"];

fn sentence(rng: &mut Rng) -> String {
    let (ask, thing, end) = (pick(rng, &ASKS), pick(rng, &THINGS), pick(rng, &ENDS));
    format!("{ask} {thing}{end} ")
}

fn pick<'a>(rng: &mut Rng, from: &[&'a str]) -> &'a str {
    from[(rng.bits() % from.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::MAX_TOKENS;
    use crate::model::{CONTEXT, Tokenizer};
    use crate::sessions::SessionId;

    #[test]
    fn every_turn_is_one_that_the_service_takes() {
        let tokenizer = Tokenizer::new();
        let (mut talk, mut held) = (Talk::new(1), std::collections::HashMap::new());
        let mut ended = 0;
        for _ in 0..500 {
            let turn = talk.turn();
            assert!(turn.session.parse::<SessionId>().is_ok(), "{turn:?}");
            let tokens: &mut usize = held.entry(turn.session).or_default();
            *tokens += tokenizer.encode(&turn.prompt).len();
            assert!(*tokens < CONTEXT - MAX_TOKENS, "{tokens}");
            *tokens += MAX_TOKENS;
            if turn.ends {
                *tokens = 0;
                ended += 1;
            }
        }
        assert_eq!(held.len(), CONVERSATIONS);
        assert!((500 / 12..500 / 3).contains(&ended), "{ended}");
    }

    #[test]
    fn a_seed_says_it_all() {
        let (mut one, mut other) = (Talk::new(7), Talk::new(7));
        assert!((0..50).all(|_| one.turn() == other.turn()));
        assert_ne!(Talk::new(7).turn(), Talk::new(8).turn());
    }
}
