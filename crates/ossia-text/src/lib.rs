//! Text for Ossia: tokenizers, the harmony format, constrained answers.
//!
//! `tokenizer` turns text into token ids and back, `harmony` turns conversations into token ids and a model's token
//! ids back into messages, `constrain` says which tokens may come next. Everything that arrives here (tokenizer files,
//! GGUF metadata, a model's tokens, a user's text and schemas) is untrusted: it gives a value or one clear error, never
//! a panic. Depends on nothing else of the project.
//!
//! ```
//! use ossia_text::harmony::{FINAL, MessageKind};
//! use ossia_text::{Conversation, Event, Harmony, Message, RenderOptions, Tokenizer};
//!
//! let harmony = Harmony::new(Tokenizer::o200k_harmony().into())?;
//! let conversation = Conversation::from(vec![Message::user("Hello")]);
//! let prompt = harmony.render_for_completion(&conversation, &RenderOptions::default())?;
//! assert_eq!(prompt, [200_006, 1_428, 200_008, 13_225, 200_007, 200_006, 173_781]);
//!
//! let mut parser = harmony.completion_parser();
//! let answer = [200_005, 17_196, 200_008, 13_225, 200_002]; // <|channel|>final<|message|>Hello<|return|>
//! let events: Vec<Event> = answer.into_iter().flat_map(|id| parser.push(id)).collect();
//! let [Event::Start(header), Event::Delta(text), Event::End(message)] = events.as_slice() else { panic!() };
//! assert_eq!((header.kind(), text.as_str()), (MessageKind::Answer, "Hello"));
//! assert_eq!(message.to_message(), Message::assistant(FINAL, "Hello"));
//! # Ok::<(), ossia_text::TextError>(())
//! ```
#![forbid(unsafe_code)]

pub mod constrain;
mod error;
pub mod harmony;
pub mod tokenizer;

pub use error::TextError;
pub use harmony::{Conversation, Event, Harmony, HarmonyParser, Message, ParsedMessage, RenderOptions, Role};

pub use tokenizer::{GgufVocab, Specials, TRAINED_SIZES, Tokenizer, Utf8Stream, byte_level_tokenizer_json, train_bpe};
