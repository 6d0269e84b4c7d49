//! A run and those who watch it: what they are shown, and other settings that they ask for.

use std::time::Instant;

use super::super::output::hinted;
use super::super::reload::Settings;
use super::super::{Fail, metrics, note, say};
use super::{Live, SETTLE, words_for};
use crate::capture::TapError;
use crate::pipeline::Notice;

impl Live<'_> {
    /// Tells whoever watches.
    pub(super) fn show(&mut self) {
        say::tick();
        let now = Instant::now();
        let beats = self.pipeline.shared().pulse.beats();
        let ended: Vec<usize> = self.pipeline.stopped().collect();
        self.progress.look(&beats, |n| ended.contains(&n), now);
        self.manager.alive(&self.progress, now);
        let Live {
            metrics: Some(metrics),
            tap,
            stats,
            losses,
            counters,
            pipeline,
            clock,
            progress,
            ports,
            ..
        } = self
        else {
            return;
        };
        metrics.look(&metrics::Look {
            tap,
            stats,
            losses,
            counters,
            shared: pipeline.shared(),
            clock,
            progress,
            ports,
        });
    }

    /// Reads the settings again, and takes them over if they make sense.
    pub(super) fn reload(&mut self) {
        self.manager.reloading();
        if let Some(reload) = &mut self.reload {
            match reload.read(&self.taps) {
                Ok(read) => {
                    if let Err(e) = self.take_over(read.settings) {
                        self.failed(e);
                    }
                    for option in read.others {
                        note(format!(
                            "{option} has changed in the settings, too: that counts from the next start on"
                        ));
                    }
                }
                Err(e) => note(format!("the settings stay as they were: {e}")),
            }
        }
        self.ready();
    }

    /// What is to be mirrored more is told to those who read it first, and what is to be mirrored no more to them last: so no packet of
    /// a port that is in both sets is passed over, nor the first one of a new one.
    fn take_over(&mut self, new: Settings) -> Result<(), Fail> {
        let failed = |e: TapError| hinted(&e, e.hint());
        if new.ports != self.ports {
            let mut both = self.ports.clone();
            both.extend(&new.ports);
            self.pipeline.notice(Notice::Ports(both.clone()));
            if !self.pipeline.follow(&both) {
                say::limited("reload", "a worker is busy: the first packets of new ports may be passed over");
            }
            self.tap.set_ports(&new.ports).map_err(failed)?;
            // What the hooks have chosen before is on its way.
            std::thread::sleep(SETTLE);
            self.pipeline.notice(Notice::Ports(new.ports.clone()));
            self.pipeline.follow(&new.ports);
            note(format!("following {}", words_for(&new.ports)));
            self.ports = new.ports;
        }
        if self.losses.set_budgets(&new.budgets) {
            self.tap.set_budgets(&new.budgets).map_err(failed)?;
            note("the budget is another one now");
        }
        let words = new.filter.words();
        if let Some(filters) = &mut self.filters
            && words != self.filter
            && filters.push(new.filter).is_ok()
        {
            note(match words.as_str() {
                "" => "writing all records".to_owned(),
                words => format!("writing records that pass {words}"),
            });
            self.filter = words;
        }
        Ok(())
    }
}
