// What TeX's commands look like: names to characters, and letters to their styled forms in Unicode.

const table = (text) => new Map(text.trim().split(/\s+/).map((pair) => pair.split("=")));

/** Letters and letter-like signs (MathML's mi). */
export const LETTERS = table(`
alpha=α beta=β gamma=γ delta=δ epsilon=ϵ varepsilon=ε zeta=ζ eta=η theta=θ vartheta=ϑ iota=ι kappa=κ lambda=λ mu=μ
nu=ν xi=ξ omicron=ο pi=π varpi=ϖ rho=ρ varrho=ϱ sigma=σ varsigma=ς tau=τ upsilon=υ phi=ϕ varphi=φ chi=χ psi=ψ omega=ω
Gamma=Γ Delta=Δ Theta=Θ Lambda=Λ Xi=Ξ Pi=Π Sigma=Σ Upsilon=Υ Phi=Φ Psi=Ψ Omega=Ω
infty=∞ partial=∂ nabla=∇ hbar=ℏ ell=ℓ Re=ℜ Im=ℑ aleph=ℵ beth=ℶ wp=℘ emptyset=∅ varnothing=∅ imath=ı jmath=ȷ
forall=∀ exists=∃ nexists=∄ top=⊤ bot=⊥ angle=∠ triangle=△ square=□ blacksquare=■ qed=∎ degree=° dagger=† ddagger=‡
checkmark=✓ clubsuit=♣ diamondsuit=♢ heartsuit=♡ spadesuit=♠ sharp=♯ flat=♭ natural=♮ S=§ P=¶ pounds=£ euro=€
ldots=… dots=… cdots=⋯ dotsc=… dotsb=⋯ vdots=⋮ ddots=⋱ prime=′ $=$ %=% #=# &=& _=_
`);

/** Operators and relations (mo). */
export const OPERATORS = table(`
pm=± mp=∓ times=× div=÷ cdot=⋅ ast=∗ star=⋆ circ=∘ bullet=• oplus=⊕ ominus=⊖ otimes=⊗ oslash=⊘ odot=⊙ wedge=∧ land=∧
vee=∨ lor=∨ cap=∩ cup=∪ setminus=∖ smallsetminus=∖ uplus=⊎ sqcap=⊓ sqcup=⊔ amalg=⨿ diamond=⋄ neg=¬ lnot=¬
leq=≤ le=≤ leqslant=⩽ geq=≥ ge=≥ geqslant=⩾ neq=≠ ne=≠ equiv=≡ approx=≈ approxeq=≊ cong=≅ sim=∼ simeq=≃ propto=∝
ll=≪ gg=≫ prec=≺ succ=≻ preceq=⪯ succeq=⪰ subset=⊂ supset=⊃ subseteq=⊆ supseteq=⊇ subsetneq=⊊ supsetneq=⊋
in=∈ notin=∉ ni=∋ mid=∣ nmid=∤ parallel=∥ perp=⊥ vdash=⊢ dashv=⊣ models=⊨ asymp=≍ doteq=≐ coloneqq=≔ colon=:
to=→ rightarrow=→ leftarrow=← gets=← leftrightarrow=↔ Rightarrow=⇒ implies=⟹ Leftarrow=⇐ impliedby=⟸
Leftrightarrow=⇔ iff=⟺ longrightarrow=⟶ longleftarrow=⟵ Longrightarrow=⟹ mapsto=↦ longmapsto=⟼ hookrightarrow=↪
uparrow=↑ downarrow=↓ updownarrow=↕ Uparrow=⇑ Downarrow=⇓ nearrow=↗ searrow=↘ swarrow=↙ nwarrow=↖ rightharpoonup=⇀
leadsto=⇝ rightleftharpoons=⇌ therefore=∴ because=∵ backslash=\\ lt=< gt=> lhd=⊲ rhd=⊳ triangleq=≜
`);

/** Operators that are large in a display and carry limits above and below. */
export const LARGE = table(`
sum=∑ prod=∏ coprod=∐ bigcup=⋃ bigcap=⋂ bigvee=⋁ bigwedge=⋀ bigoplus=⨁ bigotimes=⨂ bigodot=⨀ biguplus=⨄ bigsqcup=⨆
`);

/** Integrals: large, with limits at the side. */
export const INTEGRALS = table("int=∫ iint=∬ iiint=∭ oint=∮");

/** Functions set upright; those of the second group carry limits below. */
export const FUNCTIONS = new Set(
  `sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh coth log ln lg exp deg dim hom ker arg`.split(" "),
);
export const LIMITS = new Set("lim limsup liminf max min sup inf det gcd Pr argmax argmin".split(" "));

/** Brackets, as they follow \left and \right or stand alone. */
export const FENCES = table(`
(=( )=) [=[ ]=] {={ }=} |=| /=/ .= <=⟨ >=⟩ lbrace={ rbrace=} lbrack=[ rbrack=] langle=⟨ rangle=⟩ vert=| Vert=‖ lvert=| rvert=|
lVert=‖ rVert=‖ lfloor=⌊ rfloor=⌋ lceil=⌈ rceil=⌉ uparrow=↑ downarrow=↓ backslash=\\
`);

/** Marks over a letter. */
export const ACCENTS = table(`
hat=^ widehat=^ tilde=~ widetilde=~ bar=¯ overline=‾ vec=→ overrightarrow=→ dot=˙ ddot=¨ dddot=⃛ check=ˇ breve=˘
acute=´ grave=\` mathring=˚ overbrace=⏞
`);
export const UNDER = table("underline=_ underbrace=⏟ underrightarrow=→");

/** Spaces, in em. */
export const SPACES = new Map(
  Object.entries({ ",": 0.17, ":": 0.22, ">": 0.22, ";": 0.28, "!": -0.17, " ": 0.25, quad: 1, qquad: 2, enspace: 0.5,
    thinspace: 0.17, medspace: 0.22, thickspace: 0.28, negthinspace: -0.17 }),
);

/** Environments: the fences around them and how their columns stand. */
export const ENVIRONMENTS = new Map(
  Object.entries({
    matrix: ["", "", "c"], smallmatrix: ["", "", "c"], pmatrix: ["(", ")", "c"], bmatrix: ["[", "]", "c"],
    Bmatrix: ["{", "}", "c"], vmatrix: ["|", "|", "c"], Vmatrix: ["‖", "‖", "c"], cases: ["{", "", "l"],
    rcases: ["", "}", "l"], aligned: ["", "", "rl"], align: ["", "", "rl"], alignat: ["", "", "rl"],
    split: ["", "", "rl"], eqnarray: ["", "", "rl"], gather: ["", "", "c"], gathered: ["", "", "c"],
    multline: ["", "", "c"], equation: ["", "", "c"], array: ["", "", "c"], subarray: ["", "", "c"],
  }),
);

// Where a style's A, a and 0 stand in Unicode.
const STYLES = {
  bf: [0x1d400, 0x1d41a, 0x1d7ce], cal: [0x1d49c, 0x1d4b6, 0], bb: [0x1d538, 0x1d552, 0x1d7d8],
  frak: [0x1d504, 0x1d51e, 0], sf: [0x1d5a0, 0x1d5ba, 0x1d7e2], tt: [0x1d670, 0x1d68a, 0x1d7f6],
};
// Letters that had a place in Unicode before the styles came.
const EARLIER = {
  cal: { B: "ℬ", E: "ℰ", F: "ℱ", H: "ℋ", I: "ℐ", L: "ℒ", M: "ℳ", R: "ℛ", e: "ℯ", g: "ℊ", o: "ℴ" },
  bb: { C: "ℂ", H: "ℍ", N: "ℕ", P: "ℙ", Q: "ℚ", R: "ℝ", Z: "ℤ" },
  frak: { C: "ℭ", H: "ℌ", I: "ℑ", R: "ℜ", Z: "ℨ" },
};

/** The command that begins a style, and the style. */
export const STYLE_COMMANDS = table(`
mathbf=bf bm=bf boldsymbol=bf mathcal=cal mathscr=cal mathbb=bb mathfrak=frak mathsf=sf mathtt=tt mathrm=rm
mathit=it mathnormal=it
`);

/** A letter or digit in a style; itself if the style has no such form. */
export function styled(letter, style) {
  const earlier = EARLIER[style]?.[letter];
  const [upper, lower, digit] = STYLES[style] ?? [0, 0, 0];
  if (earlier) return earlier;
  if (upper && /^[A-Z]$/.test(letter)) return String.fromCodePoint(upper + letter.charCodeAt(0) - 65);
  if (lower && /^[a-z]$/.test(letter)) return String.fromCodePoint(lower + letter.charCodeAt(0) - 97);
  if (digit && /^[0-9]$/.test(letter)) return String.fromCodePoint(digit + letter.charCodeAt(0) - 48);
  return letter;
}
