//! The files that stay within reach: landlock.
//!
//! All that landlock can forbid is forbidden, as far as the running kernel knows it: since 5.13 reading, writing, making and
//! running files; since 6.2 truncating; since 6.7 TCP; since 6.10 device ioctls; since 6.12 signals and abstract sockets of others.
//! The directory of records is excepted. What the kernel's landlock does not know is told ([`Fence::close`]).

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, LandlockStatus, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope, make_bitflags,
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
                .scope(Scope::Signal | Scope::AbstractUnixSocket)?
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

    /// Puts the rest out of reach. Gives what this kernel's landlock does not govern, in words.
    pub fn close(self) -> Result<Vec<&'static str>, GuardError> {
        let status = self.0.restrict_self().map_err(refused("enforce landlock rules"))?;
        if status.ruleset == RulesetStatus::NotEnforced {
            let source = std::io::Error::from_raw_os_error(libc::EOPNOTSUPP);
            return Err(GuardError::System { operation: "enforce landlock rules", source });
        }
        let abi = match status.landlock {
            LandlockStatus::Available { effective_abi, .. } => effective_abi,
            _ => ABI::Unsupported,
        };
        Ok(ungoverned(abi))
    }
}

/// What landlock of this version has no rule for, of what later ones have. (The second version lets files be moved between directories
/// by rule; the first forbids it.)
fn ungoverned(abi: ABI) -> Vec<&'static str> {
    let since = [
        (ABI::V3, "emptying files that it may read"),
        (ABI::V4, "TCP"),
        (ABI::V5, "ioctl on devices"),
        (ABI::V6, "signals and abstract sockets of others"),
    ];
    since.into_iter().filter(|(version, _)| abi < *version).map(|(_, what)| what).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_older_landlock_does_not_govern_is_named() {
        assert_eq!(ungoverned(ABI::V1).len(), 4);
        assert_eq!(ungoverned(ABI::V2), ungoverned(ABI::V1));
        assert_eq!(ungoverned(ABI::V4), ["ioctl on devices", "signals and abstract sockets of others"]);
        assert!(ungoverned(ABI::V6).is_empty() && ungoverned(ABI::V7).is_empty());
    }
}
