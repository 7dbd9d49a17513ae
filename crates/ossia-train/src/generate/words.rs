//! The words that tasks are filled with. A tokenizer of few hundred tokens splits most of them, so that what is learned
//! is copying, not the lists.

/// People.
pub(super) const NAMES: &[&str] = &[
    "Ana", "Ben", "Carl", "Dora", "Emil", "Fay", "Gus", "Hana", "Ivan", "Jill", "Karl", "Lena", "Milo", "Nora", "Otto",
    "Pia", "Quinn", "Rosa", "Sven", "Tara", "Uma", "Vera", "Will", "Xena", "Yuri", "Zoe", "Adam", "Bella", "Cleo",
    "Dan", "Ella", "Finn", "Gina", "Hugo", "Iris", "Jack", "Kira", "Leo", "Mara", "Nils", "Olga", "Paul", "Rita",
    "Sam", "Tom", "Ursula", "Victor", "Wendy", "Yara", "Zack", "Amir", "Bruno", "Chen", "Diego", "Eva", "Farid",
    "Grace", "Heidi", "Igor", "Jonas", "Kofi", "Luisa", "Mei", "Nadia", "Omar", "Petra", "Ravi", "Sofia", "Tariq",
    "Vlad",
];

/// Cities.
pub(super) const CITIES: &[&str] = &[
    "Oslo", "Rome", "Paris", "Lima", "Cairo", "Tokyo", "Delhi", "Quito", "Berlin", "Madrid", "Lisbon", "Vienna",
    "Prague", "Dublin", "London", "Athens", "Warsaw", "Riga", "Turin", "Milan", "Porto", "Geneva", "Zurich", "Munich",
    "Hamburg", "Boston", "Dallas", "Denver", "Austin", "Miami", "Seattle", "Toronto", "Havana", "Bogota", "Santiago",
    "Accra", "Lagos", "Nairobi", "Tunis", "Dubai", "Doha", "Mumbai", "Dhaka", "Hanoi", "Manila", "Seoul", "Osaka",
    "Kyoto", "Sydney", "Perth", "Auckland", "Bern", "Bonn", "Ghent", "Leeds", "Malmo", "Nice", "Split", "Tampa",
    "Utrecht",
];

/// Animals that take "a".
pub(super) const ANIMALS: &[&str] = &[
    "cat", "dog", "horse", "rabbit", "parrot", "goat", "duck", "turtle", "snake", "mouse", "pony", "hamster", "fish",
    "lizard", "sheep", "pig", "hen", "frog", "ferret", "donkey",
];

/// Work that takes "a".
pub(super) const JOBS: &[&str] = &[
    "baker", "doctor", "pilot", "farmer", "nurse", "lawyer", "painter", "cook", "driver", "singer", "teacher",
    "tailor", "guard", "writer", "dancer", "judge", "miner", "sailor", "barber", "waiter", "chemist", "gardener",
];

/// Colors.
pub(super) const COLORS: &[&str] = &[
    "red", "blue", "green", "yellow", "black", "white", "brown", "pink", "purple", "gray", "gold", "silver", "violet",
    "beige", "teal", "navy",
];

/// Food without an article.
pub(super) const FOODS: &[&str] = &[
    "rice", "soup", "bread", "cheese", "pasta", "fruit", "salad", "pizza", "beans", "fish", "corn", "eggs", "curry",
    "cake", "noodles", "honey", "nuts", "stew", "plums", "figs",
];

/// Cars and the like.
pub(super) const VEHICLES: &[&str] =
    &["van", "truck", "bus", "tractor", "scooter", "taxi", "jeep", "tram", "bike", "moped", "train", "boat"];

/// How people belong together.
pub(super) const KIN: &[&str] = &[
    "brother", "sister", "friend", "boss", "neighbor", "teacher", "cousin", "uncle", "aunt", "son", "mother", "partner",
];

/// Small things.
pub(super) const THINGS: &[&str] = &[
    "key", "ring", "coin", "pen", "letter", "map", "watch", "stamp", "phone", "ticket", "lamp", "book", "ball",
    "spoon", "cup", "knife", "photo", "glove", "hat", "brush",
];

/// What holds small things.
pub(super) const BOXES: &[&str] = &[
    "box", "bag", "drawer", "chest", "basket", "case", "jar", "trunk", "crate", "pouch", "tin", "sack", "bin", "bucket",
];

/// Rooms.
pub(super) const ROOMS: &[&str] = &[
    "kitchen", "garage", "cellar", "attic", "office", "bedroom", "hall", "garden", "study", "pantry", "bathroom",
    "library", "workshop", "balcony", "lobby", "den",
];

/// Weekdays from Monday.
pub(super) const DAYS: &[&str] = &["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Months with their days in a common year.
pub(super) const MONTHS: &[(&str, u64)] = &[
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

/// Codes of currencies.
pub(super) const CURRENCIES: &[&str] =
    &["EUR", "USD", "GBP", "JPY", "CHF", "SEK", "NOK", "CAD", "AUD", "INR", "BRL", "MXN", "PLN", "CZK", "TRY", "ZAR"];

/// Appointments.
pub(super) const EVENTS: &[&str] = &[
    "lunch",
    "dinner",
    "yoga",
    "dentist",
    "meeting",
    "concert",
    "football",
    "chess",
    "choir",
    "party",
    "exam",
    "interview",
    "haircut",
    "workshop",
    "piano",
    "swimming",
];

/// Companies that do not exist.
pub(super) const COMPANIES: &[&str] = &[
    "Acme", "Borex", "Calum", "Dynor", "Elvia", "Foxtel", "Gramo", "Helix", "Intara", "Jovex", "Kantor", "Lumen",
    "Merida", "Nordal", "Optima", "Pexar",
];

/// Songs that do not exist.
pub(super) const SONGS: &[&str] = &[
    "Blue River",
    "Old Road",
    "Night Train",
    "Golden Hour",
    "Silent Snow",
    "First Rain",
    "Paper Moon",
    "Wild Rose",
    "Red Sky",
    "Long Way",
    "Green Hills",
    "Cold Harbor",
    "Lost Key",
    "Morning Light",
    "Broken Clock",
    "Sweet Home",
];

/// What one does in a note.
pub(super) const CHORES: &[&str] =
    &["buy", "fix", "wash", "sell", "find", "clean", "paint", "return", "order", "check", "bring", "move"];

/// What one does it to, and what one searches for.
pub(super) const GOODS: &[&str] = &[
    "shoes",
    "milk",
    "chairs",
    "windows",
    "tires",
    "curtains",
    "lamps",
    "plants",
    "batteries",
    "towels",
    "bottles",
    "tools",
    "boots",
    "carpets",
    "candles",
    "pillows",
];

/// Words before goods in a search.
pub(super) const QUALITIES: &[&str] =
    &["cheap", "red", "old", "small", "wooden", "soft", "large", "used", "new", "warm", "light", "strong"];

/// Words to spell.
pub(super) const SPELLED: &[&str] = &[
    "apple", "river", "stone", "maple", "tiger", "cloud", "window", "garden", "silver", "banana", "letter", "pepper",
    "mirror", "bottle", "kitten", "rabbit", "summer", "winter", "yellow", "button", "coffee", "cheese", "school",
    "street", "doctor", "planet", "orange", "purple", "ladder", "basket", "candle", "dinner", "engine", "forest",
    "hammer", "island", "jacket", "market", "needle", "office", "pencil", "rocket", "saddle", "ticket", "turtle",
    "velvet", "wallet", "zipper", "bread", "chair", "dream", "eagle", "flame", "grape", "horse", "knife", "lemon",
    "music", "night", "ocean", "piano", "queen", "robot", "snake", "train", "uncle", "voice", "whale", "zebra", "book",
    "cat", "door", "fish", "gold", "hand", "jump", "kite", "lamp", "moon", "nest", "open", "rain", "ship", "tree",
    "wolf", "hello", "paper", "glass", "level", "noon",
];

/// What does not exist, for units and words.
pub(super) const SYLLABLES: &[&str] = &[
    "ba", "be", "bo", "da", "de", "du", "fa", "fi", "fo", "ga", "gi", "go", "ha", "he", "ka", "ki", "ko", "la", "le",
    "lu", "ma", "mi", "mo", "na", "ne", "nu", "pa", "pi", "po", "ra", "re", "ro", "sa", "si", "so", "ta", "ti", "to",
    "va", "vi", "wa", "we", "za", "zo",
];

/// Countries, of which the model knows nothing.
pub(super) const COUNTRIES: &[&str] = &[
    "France",
    "Japan",
    "Brazil",
    "Kenya",
    "Norway",
    "Egypt",
    "Canada",
    "Italy",
    "Spain",
    "Peru",
    "India",
    "China",
    "Greece",
    "Cuba",
    "Chile",
    "Poland",
    "Germany",
    "Mexico",
    "Ghana",
    "Nepal",
    "Sweden",
    "Turkey",
    "Austria",
    "Iran",
    "Morocco",
    "Vietnam",
    "Finland",
    "Portugal",
    "Ireland",
    "Australia",
];

/// Themes, of which it knows nothing either.
pub(super) const THEMES: &[&str] = &[
    "the moon",
    "the sun",
    "Mars",
    "gravity",
    "love",
    "autumn",
    "music",
    "history",
    "physics",
    "football",
    "chess",
    "dragons",
    "dinosaurs",
    "whales",
    "volcanoes",
    "robots",
    "trains",
    "bridges",
    "castles",
    "coffee",
    "tea",
    "chocolate",
    "bees",
    "wolves",
    "mountains",
    "deserts",
    "the sea",
    "the wind",
    "snow",
    "time",
    "money",
    "democracy",
    "philosophy",
    "computers",
    "airplanes",
    "the brain",
    "Rome",
    "jazz",
    "cats",
    "electricity",
];

/// Instructions that change nothing.
pub(super) const INSTRUCTIONS: &[&str] = &[
    "Be brief.",
    "Answer the question.",
    "You are a helpful assistant.",
    "Be exact.",
    "Answer in one line.",
    "You help with small tasks.",
    "Give the answer only.",
    "Be polite and short.",
    "Work carefully.",
    "Reply in English.",
];
