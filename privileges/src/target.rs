//! Computes the capability sets and securebits of the plan from the settings and the modes of libcap, and checks that
//! they are possible.

use libpsx::process::{self, Capability, CapabilitySet, CapabilitySets, Securebits};

use crate::{Mode, Privileges, Problem};

/// The capabilities and securebits after the plan.
pub(crate) struct TargetState {
    pub(crate) sets: CapabilitySets,
    pub(crate) ambient: CapabilitySet,
    pub(crate) bounding: CapabilitySet,
    pub(crate) securebits: Option<Securebits>,
}

/// The `SECBIT_*` that cap_set_mode(3) sets on a kernel with an ambient set.
pub(crate) const AMBIENT_BITS: u32 = 0xef;
/// The `SECBIT_*` that belong to a mode: those about user id 0. The others stay.
pub(crate) const MODE_BITS: u32 = 0xff;
/// The `SECBIT_*` for interpreters, and their locks. A change of these alone needs no capability (cap_task_prctl,
/// security/commoncap.c).
pub(crate) const INTERPRETER_BITS: u32 = 0xf00;

/// Applies the settings to the sets of this thread. Adds a problem for each setting that is not possible.
pub(crate) fn target_state(
    settings: &Privileges,
    now: CapabilitySets,
    bits_now: Securebits,
    bounding: CapabilitySet,
    problems: &mut Vec<Problem>,
) -> TargetState {
    let asked_inheritable = settings.inheritable.unwrap_or_default();
    let asked_ambient = settings.ambient.unwrap_or_default();
    let keep = settings.keep.unwrap_or_default();
    let mut ambient = asked_ambient;
    let mut sets = CapabilitySets {
        effective: keep,
        permitted: keep,
        inheritable: asked_inheritable | asked_ambient,
    };
    let mut securebits = settings.securebits;
    let mut remaining = settings.bounding.map_or(bounding, |set| set & bounding);
    remaining = remaining - settings.blocked;
    if let Some(mode) = settings.mode {
        let mut conflict = |there: bool, what| {
            if there {
                problems.push(Problem::ModeConflict(mode, what));
            }
        };
        conflict(settings.securebits.is_some(), "choice of securebits");
        if settings.keep.is_none() && mode != Mode::NoPriv {
            sets.permitted = now.permitted;
        }
        let others = Securebits::from_bits(bits_now.bits() & !MODE_BITS);
        match mode {
            Mode::Hybrid => securebits = Some(others),
            Mode::Pure1e | Mode::Pure1eInit | Mode::NoPriv => {
                conflict(!asked_ambient.is_empty(), "ambient set");
                securebits = Some(others | Securebits::from_bits(AMBIENT_BITS));
            }
        }
        match mode {
            Mode::NoPriv => {
                conflict(!keep.is_empty(), "capability to keep");
                conflict(!asked_inheritable.is_empty(), "inheritable set");
                remaining = CapabilitySet::EMPTY;
            }
            Mode::Pure1eInit => conflict(!asked_inheritable.is_empty(), "inheritable set"),
            // The inheritable set stays as it is, with the ambient capabilities added.
            Mode::Pure1e | Mode::Hybrid if asked_inheritable.is_empty() => {
                sets.inheritable = now.inheritable | asked_ambient;
            }
            Mode::Pure1e | Mode::Hybrid => {}
        }
    }
    let mut missing = |set: CapabilitySet, problem: fn(CapabilitySet) -> Problem| {
        if !set.is_empty() {
            problems.push(problem(set));
        }
    };
    let known = CapabilitySet::all();
    let named = keep | asked_inheritable | asked_ambient | settings.bounding.unwrap_or_default();
    missing(named - known, Problem::UnknownCapabilities);
    missing((sets.permitted - now.permitted) & known, Problem::NotPermitted);
    missing((asked_ambient - sets.permitted) & known, Problem::AmbientNotKept);
    // capset(2): the bounding set limits every thread, the permitted set those without CAP_SETPCAP.
    let mut beyond = sets.inheritable - (bounding | now.inheritable);
    if !now.permitted.contains(Capability::SETPCAP) {
        beyond |= sets.inheritable - (now.permitted | now.inheritable);
    }
    missing(beyond & known, Problem::NotInheritable);
    if settings.mode == Some(Mode::Hybrid) && ambient.is_empty() {
        // The ambient set stays as it is, as far as it is permitted and inheritable.
        ambient = process::ambient_set() & sets.permitted & sets.inheritable;
    }
    TargetState { sets, ambient, bounding: remaining, securebits }
}
