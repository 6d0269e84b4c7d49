//! What is said again and again is said a few times a minute, then held back: of that the last is said when the minute is over, with
//! how many were left out. So an interface that goes down and comes up is told of at once, and one that flaps, or a disk that is full by
//! turns, fills no journal.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::note;

/// Within this time
const EVERY: Duration = Duration::from_secs(60);

/// a subject is spoken of so often: down, gone, back, up, and room for one more turn.
const OFTEN: u32 = 6;

/// Subjects that are kept apart: interfaces, and a few more. Beyond that the one that was longest silent is forgotten.
const SUBJECTS: usize = 64;

#[derive(Debug)]
struct Subject {
    /// When the present minute began,
    began: Instant,
    /// and how often it was spoken of in it.
    said: u32,
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
            if known.said < OFTEN && known.held.is_none() {
                known.said += 1;
                return Some(text);
            }
            if known.held.replace(text).is_some() {
                known.count += 1;
                self.left_out += 1;
            }
            return known.due(now);
        }
        if self.subjects.len() >= SUBJECTS
            && let Some(oldest) =
                self.subjects.iter().min_by_key(|(_, s)| s.began).map(|(name, _)| name.clone())
        {
            self.left_out += u64::from(self.subjects.remove(&oldest).is_some_and(|s| s.held.is_some()));
        }
        self.subjects.insert(subject.to_owned(), Subject { began: now, said: 1, held: None, count: 0 });
        Some(text)
    }

    /// What has been held back long enough.
    fn tick(&mut self, now: Instant) -> Vec<String> {
        let due = self.subjects.values_mut().filter_map(|s| s.due(now)).collect();
        self.subjects.retain(|_, s| now.duration_since(s.began) < EVERY);
        due
    }

    /// All that is held back.
    fn rest(&mut self) -> Vec<String> {
        std::mem::take(&mut self.subjects).into_values().filter_map(|mut s| s.take()).collect()
    }
}

impl Subject {
    fn due(&mut self, now: Instant) -> Option<String> {
        if now.duration_since(self.began) < EVERY {
            return None;
        }
        let text = self.take()?;
        // It goes on, so the next minute has no turns of its own.
        (self.began, self.said) = (now, OFTEN);
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
    fn what_is_repeated_is_said_a_few_times_then_once_a_minute_with_how_much_was_left_out() {
        let mut l = Limiter::new();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        for n in 0..OFTEN {
            let text = format!("turn {n}");
            assert_eq!(l.say("eth0", text.clone(), at(0)), Some(text));
        }
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
        let said = (0..=OFTEN).filter_map(|n| l.say("a", n.to_string(), now)).count();
        assert_eq!(said, OFTEN as usize);
        assert_eq!(l.tick(now + EVERY), [OFTEN.to_string()]);
        for n in 0..SUBJECTS * 2 {
            l.say(&n.to_string(), "x".into(), now + EVERY);
        }
        assert_eq!(l.subjects.len(), SUBJECTS);
        assert!(l.tick(now + EVERY * 3).is_empty() && l.subjects.is_empty(), "what is silent is forgotten");
        assert_eq!(l.say("a", "again".into(), now + EVERY * 3).as_deref(), Some("again"));
    }
}
