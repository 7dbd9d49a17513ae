//! Tokenizers, harmony and constraints against oracles, vectors and random input, in one program.

mod common;

mod constrain_hostile;
mod constrain_schemas;
mod constrain_speed;
mod constrain_turns;
mod fuzz;
mod harmony_parse;
mod harmony_render;
mod o200k;
mod parser_random;
mod tokenizer_files;
