//! What the three programs share: [`signals`] that stop them, [`sibling`] programs that they start,
//! and the pages of their [`manual`].

pub mod manual;
pub mod sibling;
pub mod signals;
