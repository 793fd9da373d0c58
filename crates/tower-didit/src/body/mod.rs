//! Bodies that the layers handle.

mod replay;

pub(crate) use self::replay::Kept;
pub use self::replay::ReplayBody;
