//! Whom to become, and giving up all capabilities.

use caps::{CapSet, Capability, CapsHashSet};
use nix::unistd::{
    Gid, Uid, User, getegid, geteuid, getresuid, setfsgid, setfsuid, setgroups, setresgid, setresuid,
};

use super::{GuardError, Lacking, failed};

/// Whom root becomes if nobody is named.
pub const DEFAULT_USER: &str = "syntap";

/// A user and his group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
}

impl Account {
    /// Whoever this process is.
    pub(super) fn own() -> Account {
        let uid = geteuid();
        let name = User::from_uid(uid).ok().flatten().map_or_else(|| format!("user {uid}"), |u| u.name);
        Account { name, uid, gid: getegid() }
    }

    /// His name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// His number.
    pub fn uid(&self) -> u32 {
        self.uid.as_raw()
    }

    fn is_own(&self) -> bool {
        self.uid == geteuid()
    }

    /// Works with this user's rights to files, of this thread alone. Also the capabilities over files rest meanwhile.
    pub(super) fn files_as<T>(&self, work: impl FnOnce() -> T) -> T {
        if self.is_own() {
            return work();
        }
        let (gid, uid) = (setfsgid(self.gid), setfsuid(self.uid));
        let done = work();
        setfsuid(uid);
        setfsgid(gid);
        done
    }
}

/// Whom to become, and what is missing if root must stay root.
pub(super) fn account(named: Option<&str>) -> Result<(Account, Option<Lacking>), GuardError> {
    let own = Account::own();
    let find = |name: &str| User::from_name(name).ok().flatten();
    let found = match named {
        // Also where no list of users says so, as in an initramfs.
        Some("root" | "0") => {
            Some(Account { name: "root".into(), uid: Uid::from_raw(0), gid: Gid::from_raw(0) })
        }
        Some(name) => {
            let user = find(name).ok_or_else(|| GuardError::Unknown(name.to_owned()))?;
            Some(Account { name: user.name, uid: user.uid, gid: user.gid })
        }
        None if !own.uid.is_root() => None,
        None => match find(DEFAULT_USER) {
            Some(user) => Some(Account { name: user.name, uid: user.uid, gid: user.gid }),
            None => return Ok((own, Some(Lacking::User))),
        },
    };
    match found {
        None => Ok((own, None)),
        Some(found) if found.uid == own.uid => Ok((own, None)),
        Some(found) if !own.uid.is_root() => Err(GuardError::NotRoot(found.name)),
        Some(found) => Ok((found, None)),
    }
}

fn refused(operation: &'static str) -> impl Fn(caps::errors::CapsError) -> GuardError {
    move |e| GuardError::System { operation, source: std::io::Error::other(e.to_string()) }
}

/// Becomes the user, without a way back.
fn become_user(account: &Account) -> Result<(), GuardError> {
    if account.is_own() {
        return Ok(());
    }
    setgroups(&[account.gid]).map_err(failed("leave the groups of root"))?;
    setresgid(account.gid, account.gid, account.gid).map_err(failed("become the user's group"))?;
    setresuid(account.uid, account.uid, account.uid).map_err(failed("become the user"))?;
    let now = getresuid().map_err(failed("see who it is"))?;
    let all = [now.real, now.effective, now.saved];
    assert!(all.iter().all(|u| *u == account.uid), "a user that was left is not there to come back to");
    Ok(())
}

/// The bounding set can be emptied by who has `CAP_SETPCAP`; without it, no new privileges makes it of no use.
fn empty_bounding_set() -> Result<(), GuardError> {
    let can = caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP);
    if can.map_err(refused("read its capabilities"))? {
        caps::clear(None, CapSet::Bounding).map_err(refused("empty its bounding set"))?;
    }
    Ok(())
}

fn never_more() -> Result<(), GuardError> {
    nix::sys::prctl::set_no_new_privs().map_err(failed("forbid itself new privileges"))?;
    // No core dumps, which would hold packets, and no debugger of the same user.
    nix::sys::prctl::set_dumpable(false).map_err(failed("forbid core dumps"))
}

/// Becomes the user and gives up every capability, in all five sets.
pub(super) fn give_up(account: &Account) -> Result<(), GuardError> {
    keep(account, &CapsHashSet::new())
}

/// Becomes the user and keeps these capabilities alone.
pub(super) fn keep(account: &Account, kept: &CapsHashSet) -> Result<(), GuardError> {
    caps::clear(None, CapSet::Ambient).map_err(refused("empty its ambient set"))?;
    empty_bounding_set()?;
    // A user that is left takes all capabilities along, unless the kernel is told otherwise.
    caps::securebits::set_keepcaps(!kept.is_empty()).map_err(refused("keep a capability"))?;
    become_user(account)?;
    caps::clear(None, CapSet::Inheritable).map_err(refused("give up inheritable capabilities"))?;
    // What is effective must be permitted: so none is, then those that are kept.
    caps::clear(None, CapSet::Effective).map_err(refused("give up capabilities"))?;
    caps::set(None, CapSet::Permitted, kept).map_err(refused("give up capabilities"))?;
    caps::set(None, CapSet::Effective, kept).map_err(refused("keep a capability"))?;
    caps::securebits::set_keepcaps(false).map_err(refused("keep a capability"))?;
    never_more()?;
    for set in [CapSet::Effective, CapSet::Permitted] {
        let left = caps::read(None, set).map_err(refused("read its capabilities"))?;
        assert_eq!(&left, kept, "the kernel keeps what it was told to keep");
    }
    Ok(())
}
