//! Stub while the protocol is being written.
#![allow(unsafe_code)]
use crate::{Agreement, Error, Report, Sensitivity};
use core::time::Duration;
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) nr: usize,
    pub(crate) args: [usize; 6],
    pub(crate) agreement: Agreement,
}
pub(crate) struct Settings {
    pub(crate) deadline: Duration,
    pub(crate) sensitivity: Sensitivity,
}
pub(crate) unsafe fn perform(
    calls: &[Call],
    settings: &Settings,
    _report: Option<&mut Report>,
) -> Result<usize, Error> {
    let _ = (
        settings.deadline,
        settings.sensitivity,
        calls.first().map(|c| (c.nr, c.args, c.agreement)),
    );
    Err(Error::Environment { need: crate::Need::Memory, errno: crate::Errno::NOSYS })
}
