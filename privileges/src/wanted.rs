//! What the capability sets and securebits are to be: what is kept, the modes of libcap, and whether it can be had.

use libpsx::process::{self, Capabilities, Capability, CapabilitySet, Securebits};

use crate::{Error, Mode, Privileges};

/// What the capabilities are to be.
pub(crate) struct Wanted {
    pub(crate) sets: Capabilities,
    pub(crate) ambient: CapabilitySet,
    pub(crate) bounding: CapabilitySet,
    pub(crate) securebits: Option<Securebits>,
}

/// `SECBIT_*` as cap_set_mode(3) sets them where there is an ambient set.
const AMBIENT_BITS: u32 = 0xef;

/// What a wish makes of the sets of this thread; an error if it cannot be.
pub(crate) fn wanted(
    wish: &Privileges,
    now: Capabilities,
    bounding: CapabilitySet,
) -> Result<Wanted, Error> {
    let mut ambient = wish.ambient;
    let mut sets = Capabilities {
        effective: wish.keep.unwrap_or_default(),
        permitted: wish.keep.unwrap_or_default(),
        inheritable: wish.inheritable | wish.ambient,
    };
    let mut securebits = wish.securebits;
    let mut remaining = wish.bounding.map_or(bounding, |set| set & bounding);
    if let Some(mode) = wish.mode {
        let conflict =
            |there: bool, what| if there { Err(Error::Conflict(mode, what)) } else { Ok(()) };
        conflict(wish.securebits.is_some(), "choice of securebits")?;
        if wish.keep.is_none() && mode != Mode::NoPriv {
            sets.permitted = now.permitted;
        }
        match mode {
            Mode::Hybrid => securebits = Some(Securebits::EMPTY),
            Mode::Pure1e | Mode::Pure1eInit | Mode::NoPriv => {
                conflict(!wish.ambient.is_empty(), "ambient set")?;
                securebits = Some(Securebits::from_bits(AMBIENT_BITS));
            }
        }
        match mode {
            Mode::NoPriv => {
                conflict(wish.keep.is_some_and(|set| !set.is_empty()), "capability to keep")?;
                conflict(!wish.inheritable.is_empty(), "inheritable set")?;
                remaining = CapabilitySet::EMPTY;
            }
            Mode::Pure1eInit => conflict(!wish.inheritable.is_empty(), "inheritable set")?,
            // It is left as it is.
            Mode::Pure1e | Mode::Hybrid if wish.inheritable.is_empty() => {
                sets.inheritable = now.inheritable | wish.ambient;
            }
            Mode::Pure1e | Mode::Hybrid => {}
        }
    }
    let missing = |set: CapabilitySet, error: fn(CapabilitySet) -> Error| {
        if set.is_empty() { Ok(()) } else { Err(error(set)) }
    };
    let named = wish.keep.unwrap_or_default()
        | wish.inheritable
        | wish.ambient
        | wish.bounding.unwrap_or_default();
    missing(named - CapabilitySet::all(), Error::UnknownCapabilities)?;
    missing(sets.permitted - now.permitted, Error::NotHeld)?;
    missing(wish.ambient - sets.permitted, Error::AmbientNotKept)?;
    // capset(2); the second holds whoever asks.
    if !now.permitted.contains(Capability::SETPCAP) {
        missing(sets.inheritable - (now.permitted | now.inheritable), Error::NotInheritable)?;
    }
    missing(sets.inheritable - (bounding | now.inheritable), Error::NotInheritable)?;
    if wish.mode == Some(Mode::Hybrid) && ambient.is_empty() {
        // It is left as it is.
        ambient = process::ambient_set() & sets.permitted & sets.inheritable;
    }
    Ok(Wanted { sets, ambient, bounding: remaining, securebits })
}
