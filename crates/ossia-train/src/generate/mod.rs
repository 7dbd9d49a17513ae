//! Procedurally generated conversations with known answers.
