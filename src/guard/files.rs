//! The files that stay within reach: landlock.
//!
//! All that landlock can forbid is forbidden, as far as the running kernel knows it: since 5.13 reading, writing, making and
//! running files; since 6.2 truncating; since 6.7 TCP; since 6.10 device ioctls; since 6.12 signals to others. The directory of
//! records is excepted.

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset,
    RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
};

use super::{GuardError, Reach};

/// What is done in a directory of records: new shards, written, listed and removed in time.
fn in_directory() -> BitFlags<AccessFs> {
    make_bitflags!(AccessFs::{WriteFile | ReadFile | ReadDir | MakeReg | RemoveFile | Truncate})
}

/// Whether this kernel has landlock and was booted with it. Asking confines nothing.
pub fn supported() -> bool {
    let least = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    least.is_ok()
}

/// Files within reach, before all others are out of it.
pub struct Fence(RulesetCreated);

fn refused(operation: &'static str) -> impl Fn(landlock::RulesetError) -> GuardError {
    move |e| GuardError::System { operation, source: std::io::Error::other(e.to_string()) }
}

impl Fence {
    /// Opens what is to stay within reach.
    pub fn around(reach: &Reach) -> Result<Fence, GuardError> {
        let made = || {
            Ruleset::default()
                .handle_access(AccessFs::from_all(ABI::V7))?
                // No TCP port is allowed: what listens was bound before, and nothing is connected to.
                .handle_access(AccessNet::from_all(ABI::V7))?
                .scope(Scope::Signal)?
                .create()
        };
        let mut fence = made().map_err(refused("make landlock rules"))?;
        let read = AccessFs::from_read(ABI::V7) & !AccessFs::Execute;
        let (write, read) =
            (reach.write.iter().map(|p| (p, in_directory())), reach.read.iter().map(|p| (p, read)));
        for (path, access) in write.chain(read) {
            let open = |e: landlock::PathFdError| GuardError::System {
                operation: "open what stays within reach",
                source: std::io::Error::other(e.to_string()),
            };
            let beneath = PathFd::new(path).map_err(open)?;
            let access = if path.is_dir() { access } else { access & AccessFs::from_file(ABI::V7) };
            fence =
                fence.add_rule(PathBeneath::new(beneath, access)).map_err(refused("add a landlock rule"))?;
        }
        Ok(Fence(fence))
    }

    /// Puts the rest out of reach.
    pub fn close(self) -> Result<(), GuardError> {
        let status = self.0.restrict_self().map_err(refused("enforce landlock rules"))?;
        if status.ruleset == RulesetStatus::NotEnforced {
            let source = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            return Err(GuardError::System { operation: "enforce landlock rules", source });
        }
        Ok(())
    }
}
