//! What is said again and again is said once a minute: the first time at once, then the last of what came, with how many were left
//! out. An interface that flaps, or a disk that is full by turns, fills no journal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::note;

/// Within this time a subject is spoken of once.
const EVERY: Duration = Duration::from_secs(60);

/// Subjects that are kept apart: interfaces, and a few more. Beyond that the one that was longest silent is forgotten.
const SUBJECTS: usize = 64;

#[derive(Debug)]
struct Subject {
    said: Instant,
    /// The last of what was held back.
    held: Option<String>,
    count: u64,
}

/// See the module.
#[derive(Debug, Default)]
struct Limiter {
    subjects: BTreeMap<String, Subject>,
    /// Never said, all in all.
    left_out: u64,
}

impl Limiter {
    const fn new() -> Limiter {
        Limiter { subjects: BTreeMap::new(), left_out: 0 }
    }

    /// What is to be said now, if anything.
    fn say(&mut self, subject: &str, text: String, now: Instant) -> Option<String> {
        if let Some(known) = self.subjects.get_mut(subject) {
            if known.held.replace(text).is_some() {
                known.count += 1;
                self.left_out += 1;
            }
            return known.due(now);
        }
        if self.subjects.len() >= SUBJECTS
            && let Some(oldest) =
                self.subjects.iter().min_by_key(|(_, s)| s.said).map(|(name, _)| name.clone())
        {
            self.left_out += u64::from(self.subjects.remove(&oldest).is_some_and(|s| s.held.is_some()));
        }
        self.subjects.insert(subject.to_owned(), Subject { said: now, held: None, count: 0 });
        Some(text)
    }

    /// What has been held back long enough.
    fn tick(&mut self, now: Instant) -> Vec<String> {
        let due = self.subjects.values_mut().filter_map(|s| s.due(now)).collect();
        self.subjects.retain(|_, s| now.duration_since(s.said) < EVERY);
        due
    }

    /// All that is held back.
    fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.subjects).into_values().filter_map(|mut s| s.take()).collect()
    }
}

impl Subject {
    fn due(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.said) < EVERY {
            return None;
        }
        let text = self.take()?;
        self.said = now;
        Some(text)
    }

    fn take(&mut self) -> Option<String> {
        let text = self.held.take()?;
        let left_out = match std::mem::take(&mut self.count) {
            0 => String::new(),
            1 => " (1 message on this was left out before)".into(),
            n => format!(" ({n} messages on this were left out before)"),
        };
        Some(format!("{text}{left_out}"))
    }
}

static LIMITER: Mutex<Limiter> = Mutex::new(Limiter::new());

fn with<T>(work: impl FnOnce(&mut Limiter) -> T) -> T {
    work(&mut LIMITER.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Says something of a subject, now or later.
pub fn limited(subject: &str, text: impl std::fmt::Display) {
    let text = text.to_string();
    if let Some(text) = with(|l| l.say(subject, text, Instant::now())) {
        note(text);
    }
}

/// Says what has been held back long enough. To be called now and then.
pub fn tick() {
    with(|l| l.tick(Instant::now())).into_iter().for_each(note);
}

/// Says all that is held back: the run ends.
pub fn rest() {
    with(Limiter::rest).into_iter().for_each(note);
}

/// How many messages were left out.
pub fn left_out() -> u64 {
    with(|l| l.left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_repeated_is_said_once_a_minute_with_how_much_was_left_out() {
        let mut l = Limiter::new();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert_eq!(l.say("eth0", "down".into(), at(0)).as_deref(), Some("down"));
        assert_eq!(l.say("eth1", "down".into(), at(1)).as_deref(), Some("down"), "another subject");
        for n in 0..10 {
            assert_eq!(l.say("eth0", format!("up {n}"), at(2)), None);
        }
        assert!(l.tick(at(59)).is_empty());
        assert_eq!(l.tick(at(60)), ["up 9 (9 messages on this were left out before)"]);
        assert_eq!(l.say("eth0", "down".into(), at(61)), None, "the last one was said a second ago");
        assert_eq!(l.say("eth0", "up".into(), at(62)), None);
        assert_eq!(l.rest(), ["up (1 message on this was left out before)"]);
        assert_eq!(l.left_out, 10);
    }

    #[test]
    fn the_last_state_is_always_said_and_the_subjects_are_few() {
        let mut l = Limiter::new();
        let now = Instant::now();
        l.say("a", "down".into(), now);
        l.say("a", "up".into(), now);
        assert_eq!(l.tick(now + EVERY), ["up"]);
        for n in 0..SUBJECTS * 2 {
            l.say(&n.to_string(), "x".into(), now + EVERY);
        }
        assert_eq!(l.subjects.len(), SUBJECTS);
        assert!(l.tick(now + EVERY * 3).is_empty() && l.subjects.is_empty(), "what is silent is forgotten");
    }
}
