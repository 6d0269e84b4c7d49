//! Filters of system calls: seccomp.
//!
//! Three, one upon the other, of which the strictest answer counts: calls that nothing of this program makes end it
//! ([`calls::NEVER`]); `clone3`, whose flags a filter cannot see, is said not to exist; all others that are not in
//! [`calls::RUNNING`] raise SIGSYS, whose handler says so and lets them fail ([`super::refused`]).

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, apply_filter_all_threads,
};

use super::GuardError;
use super::calls::{self, Call, If};

/// Whether this kernel filters system calls, and this architecture has a list of them here.
pub fn supported() -> bool {
    let actions = std::fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").unwrap_or_default();
    let has = |action| actions.split_whitespace().any(|a| a == action);
    arch().is_ok() && has("trap") && has("kill_process")
}

fn refused(e: impl std::fmt::Display) -> GuardError {
    GuardError::System { operation: "filter system calls", source: std::io::Error::other(e.to_string()) }
}

fn arch() -> Result<TargetArch, GuardError> {
    TargetArch::try_from(std::env::consts::ARCH).map_err(refused)
}

/// Compiled, and not yet in force.
pub struct Filters(Vec<BpfProgram>);

impl Filters {
    /// Of a running tap; `attach`: one that hooks interfaces again when they come back.
    pub fn running(attach: bool) -> Result<Filters, GuardError> {
        let also = if attach { calls::INLINE } else { &[] };
        let allowed = [calls::RUNNING, also].concat();
        let no_clone3 = Call { number: libc::SYS_clone3, name: "clone3", when: If::Any, why: "" };
        let errno = SeccompAction::Errno(libc::ENOSYS as u32);
        Ok(Filters(vec![
            compiled(calls::NEVER, SeccompAction::KillProcess, SeccompAction::Allow)?,
            compiled(&[no_clone3], errno, SeccompAction::Allow)?,
            compiled(&allowed, SeccompAction::Allow, SeccompAction::Trap)?,
        ]))
    }

    /// Of the helper.
    pub fn helper() -> Result<Filters, GuardError> {
        Ok(Filters(vec![compiled(calls::HELPER, SeccompAction::Allow, SeccompAction::KillProcess)?]))
    }

    /// From now on, for all threads.
    pub fn apply(self) -> Result<(), GuardError> {
        let applied =
            self.0.iter().try_for_each(|program| apply_filter_all_threads(program)).map_err(refused);
        // Giving its memory back may be one of the calls that are not allowed any more.
        std::mem::forget(self);
        applied
    }
}

/// `listed` is what becomes of the calls of the list, `other` of all others.
fn compiled(list: &[Call], listed: SeccompAction, other: SeccompAction) -> Result<BpfProgram, GuardError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for call in list {
        rules.entry(call.number).or_default().extend(conditions(call.when)?);
    }
    let filter = SeccompFilter::new(rules, other, listed, arch()?).map_err(refused)?;
    filter.try_into().map_err(refused)
}

/// One rule for each value that will do; no rule at all is one for every value.
fn conditions(when: If) -> Result<Vec<SeccompRule>, GuardError> {
    match when {
        If::Any => Ok(Vec::new()),
        If::OneOf(arg, values) => values.iter().map(|v| rule(&[If::Is(arg, *v)])).collect(),
        If::Each(all) => Ok(vec![rule(all)?]),
        one => Ok(vec![rule(&[one])?]),
    }
}

/// All of them must be so.
fn rule(all: &[If]) -> Result<SeccompRule, GuardError> {
    let conditions = all.iter().map(|when| condition(*when)).collect::<Result<_, _>>()?;
    SeccompRule::new(conditions).map_err(refused)
}

/// What can be said in one comparison.
fn condition(when: If) -> Result<SeccompCondition, GuardError> {
    use SeccompCmpArgLen::{Dword, Qword};
    use SeccompCmpOp::{Eq, MaskedEq};
    let masked = |bits: u32| MaskedEq(bits.into());
    let (arg, len, op, value) = match when {
        If::Is(arg, value) => (arg, Dword, Eq, value),
        If::All(arg, bits) => (arg, Dword, masked(bits), bits),
        If::None(arg, bits) | If::NoMode(arg, bits) => (arg, Dword, masked(bits), 0),
        If::Own(arg) => (arg, Dword, Eq, std::process::id()),
        // In half of it an address could be hidden whose other half is 0.
        If::Null(arg) => (arg, Qword, Eq, 0),
        If::Any | If::OneOf(..) | If::Each(_) => unreachable!("no single comparison, and in no `Each`"),
    };
    SeccompCondition::new(arg, len, op, value.into()).map_err(refused)
}
