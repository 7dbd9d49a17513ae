// What the stand-in server answers.

export const thoughts = {
  usual: "The user asks a question. Let me think about what matters:\n\n1. Be **correct**.\n2. Be brief.\n\nI will answer directly, with an example.",
  result: "The tool gave its result. Now summarise it.",
};

const code = `Here is the function, with its tests:

\`\`\`python
from dataclasses import dataclass

@dataclass(frozen=True)
class Interval:
    """Half-open: start <= x < end."""
    start: int
    end: int

def merge(intervals: list[Interval]) -> list[Interval]:
    # Sort by start, then grow the last one while they touch.
    merged: list[Interval] = []
    for it in sorted(intervals, key=lambda i: i.start):
        if merged and it.start <= merged[-1].end:
            merged[-1] = Interval(merged[-1].start, max(merged[-1].end, it.end))
        else:
            merged.append(it)
    return merged

assert merge([Interval(5, 9), Interval(1, 6)]) == [Interval(1, 9)]
print(f"all good: {0x2a + 1.5e3}")
\`\`\`

Sorting dominates, so it takes \`O(n log n)\` time. The same in Rust:

\`\`\`rust
/// Merges overlapping ranges.
pub fn merge(mut xs: Vec<Range<u64>>) -> Vec<Range<u64>> {
    xs.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::with_capacity(xs.len());
    for r in xs {
        match out.last_mut() {
            Some(last) if r.start <= last.end => last.end = last.end.max(r.end),
            _ => out.push(r),
        }
    }
    out
}
\`\`\`

Run it with:

\`\`\`bash
cargo test --release -- --nocapture | tee "out-$(date +%F).log"   # keeps a log
\`\`\``;

const table = `## SQLite and PostgreSQL

Both are excellent; they answer **different questions**.

| | SQLite | PostgreSQL |
|---|---|---|
| Setup | none: a library and a file | a server to install and run |
| Writers at once | one | many |
| Concurrency | locks the whole database<br>(WAL: readers go on) | row locks, MVCC |
| Backup | copy the file, or \`.backup\` | \`pg_dump\`, base backups, WAL shipping |
| Largest size | 281 TB | practically unlimited |
| Typical latency | 5 µs | 200 µs |

> **Rule of thumb.** If one program on one machine uses the data, begin with SQLite.

---

### When to move on

1. Several machines must write.
2. You need roles and fine-grained access:
   - row-level security
   - column privileges
3. You want replication.

- [x] Decide on the schema
- [ ] Measure before you move

See [the SQLite documentation](https://www.sqlite.org/whentouse.html "When to use SQLite") for more.`;

const math = `The sum of the first $n$ squares is

$$
\\sum_{k=1}^{n} k^2 = \\frac{n(n+1)(2n+1)}{6}.
$$

**Proof.** Use the telescoping identity $(k+1)^3 - k^3 = 3k^2 + 3k + 1$ and sum over $k$:

\\[
\\begin{aligned}
(n+1)^3 - 1 &= 3\\sum_{k=1}^n k^2 + 3\\cdot\\frac{n(n+1)}{2} + n \\\\
\\Rightarrow\\quad 3\\sum_{k=1}^n k^2 &= (n+1)^3 - 1 - \\tfrac{3}{2}n(n+1) - n
\\end{aligned}
\\]

Other things that must look right: the Gaussian integral $\\int_{-\\infty}^{\\infty} e^{-x^2}\\,dx = \\sqrt{\\pi}$, a limit $\\lim_{x \\to 0} \\frac{\\sin x}{x} = 1$, and

$$
A = \\begin{pmatrix} a_{11} & a_{12} \\\\ a_{21} & a_{22} \\end{pmatrix}, \\qquad
f(x) = \\begin{cases} x^2 & \\text{if } x \\ge 0 \\\\ -x & \\text{otherwise} \\end{cases}, \\qquad
\\left\\lVert \\frac{\\partial \\mathcal{L}}{\\partial \\theta} \\right\\rVert_2 \\le \\epsilon
$$

Prices such as $5 and $6 stay prices, and \\(\\sqrt[3]{x+\\hat{y}} \\in \\mathbb{R}\\) is inline. An unknown one: $\\frobnicate{x}$.`;

const usual = `Light from the sun holds all colours. On its way through the air it meets molecules much smaller than its wavelength, and these scatter **blue light far more strongly than red**: the strength goes with the inverse fourth power of the wavelength.

So in whatever direction you look by day, some blue light is scattered towards you. At sunset the light has come a long way through the air; the blue is gone, and *red and orange* are left.

Ask me for a \`table\`, some code or mathematics.`;

const hostile = `<script>alert(1)</script> <img src=x onerror=alert(1)>

[click](javascript:alert(1)) [data](data:text/html,<script>alert(1)</script>) ![pixel](https://evil.example/p.png)

<iframe src="https://evil.example"></iframe> ** unbalanced * and \`ticks

${"> ".repeat(40)}deep

$\\frac{\\href{javascript:alert(1)}{x}}{2}$`;

export const answers = {
  table, code, math, hostile, usual,
  broken: usual,
  huge: `\`\`\`js\n${'const a = { b: [1, "two", `three`] }; // four\n'.repeat(3000)}\`\`\`\n\nDone.`,
  toolresult: "In Lisbon it will be **sunny** for three days: 21, 22 and 24 °C.",
  long: Array.from({ length: 40 }, (_, i) => `${i + 1}. Point number ${i + 1} of a long list, with enough words in it to take up a whole line or even two of them on a narrow screen.`).join("\n"),
};
