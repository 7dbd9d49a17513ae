//! The slow truth, in f64, with plain numbers.

/// A [r, K], B [N, r] and s.
pub struct Plain {
    pub a: Vec<f64>,
    pub b: Vec<f64>,
    pub rank: usize,
    pub scale: f64,
}

impl Plain {
    /// s B A [N, K]: what the adapter adds to the weights.
    pub fn product(&self) -> Vec<f64> {
        let k = self.a.len() / self.rank;
        let element = |n: usize, c: usize| {
            (0..self.rank).map(|r| self.b[n * self.rank + r] * self.a[r * k + c]).sum::<f64>() * self.scale
        };
        (0..self.b.len() / self.rank).flat_map(|n| (0..k).map(move |c| (n, c))).map(|(n, c)| element(n, c)).collect()
    }

    /// s B (A x) [T, N].
    pub fn forward(&self, x: &[f64]) -> Vec<f64> {
        let k = self.a.len() / self.rank;
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        x.chunks_exact(k)
            .flat_map(|x| {
                let u: Vec<f64> = self.a.chunks_exact(k).map(|a| self.scale * dot(a, x)).collect();
                self.b.chunks_exact(self.rank).map(move |b| dot(b, &u)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// dx, dA and dB, where dy [T, N] comes back: those of the product's gradient, spread over its factors.
    pub fn backward(&self, x: &[f64], dy: &[f64]) -> (Vec<f64>, Vec<f64>, Vec<f64>) {
        let (r, k, n) = (self.rank, self.a.len() / self.rank, self.b.len() / self.rank);
        let weight = self.product();
        let (mut dx, mut da, mut db) = (vec![0.0; x.len()], vec![0.0; self.a.len()], vec![0.0; self.b.len()]);
        for t in 0..x.len() / k {
            for i in 0..n {
                let d = dy[t * n + i];
                for c in 0..k {
                    dx[t * k + c] += d * weight[i * k + c];
                    let dw = self.scale * d * x[t * k + c];
                    for j in 0..r {
                        da[j * k + c] += self.b[i * r + j] * dw;
                        db[i * r + j] += self.a[j * k + c] * dw;
                    }
                }
            }
        }
        (dx, da, db)
    }
}
