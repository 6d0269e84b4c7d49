//! Confines the helper: a process that keeps one capability and can do hardly anything with it.

use caps::{Capability, CapsHashSet};

use super::files::Fence;
use super::filter::{self, Filters};
use super::{Account, Guard, GuardError, Reach, files, rights};

/// What the helper of a confined run will be.
pub struct HelperGuard {
    account: Account,
    enclosed: bool,
    filters: Option<Filters>,
}

impl Guard {
    /// For a helper of this run; `None` where nothing is given up.
    pub fn helper(&self) -> Result<Option<HelperGuard>, GuardError> {
        if !self.is_on() {
            return Ok(None);
        }
        let filters = filter::supported().then(Filters::helper).transpose()?;
        Ok(Some(HelperGuard { account: self.account().clone(), enclosed: files::supported(), filters }))
    }
}

impl HelperGuard {
    /// Becomes the user, keeps `CAP_NET_ADMIN`, and can from now on receive, send and end.
    pub fn enter(self) -> Result<(), GuardError> {
        rights::keep(&self.account, &CapsHashSet::from([Capability::CAP_NET_ADMIN]))?;
        if self.enclosed {
            Fence::around(&Reach::default())?.close()?;
        }
        self.filters.map_or(Ok(()), Filters::apply)
    }
}
