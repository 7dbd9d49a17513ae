//! The instruction set, chosen once at start.

/// Which version of the kernels runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Plain Rust, on any machine.
    Scalar,
    /// x86-64 with AVX2, FMA and F16C.
    Avx2,
    /// The same with AVX-VNNI, four products of bytes in one instruction: Intel's desktop and laptop processors since 2021.
    AvxVnni,
    /// AVX2, FMA and F16C with AVX-512 (F, BW, DQ, VL) and its VNNI.
    Avx512,
    /// The same with VBMI, and AMX for products of bytes.
    Amx,
}

impl Isa {
    /// The best that this machine has.
    pub fn detect() -> Self {
        *Self::all().last().expect("plain Rust runs everywhere")
    }

    /// Every version that this machine can run, the plainest first.
    pub fn all() -> Vec<Self> {
        #[allow(unused_mut)]
        let mut all = vec![Isa::Scalar];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c") {
            all.push(Isa::Avx2);
            if is_x86_feature_detected!("avxvnni") {
                all.push(Isa::AvxVnni);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512vnni")
            {
                all.push(Isa::Avx512);
                if is_x86_feature_detected!("avx512vbmi") && has_amx() {
                    all.push(Isa::Amx);
                }
            }
        }
        all
    }

    /// A word for people.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Avx2 => "avx2",
            Isa::AvxVnni => "avxvnni",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }

    /// The version of what multiplies no bytes: AVX-VNNI and AMX have nothing else.
    pub const fn of_floats(self) -> Self {
        match self {
            Isa::AvxVnni => Isa::Avx2,
            Isa::Amx => Isa::Avx512,
            other => other,
        }
    }
}

/// What processors with the same instructions differ in, as far as kernels care: which of several ways is fastest.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processor {
    /// Intel's, as measured on Granite Rapids, and what is not known better. Memory is best asked for in several places side
    /// by side, into the second cache: the processor reads on by itself from each of them.
    Intel,
    /// AMD's Zen 4. It computes 512 bits in two halves. Memory is best asked for in the order of addresses, into the second
    /// cache, and twice: the first cache has too few lines on their way to keep memory busy, and is half as fast; and some of
    /// what is asked for is dropped. (Zen 3 counts as one, which only its floats ask: AVX2's kernels for integers know their way.)
    Zen4,
    /// AMD's Zen 5. Memory is best asked for in the order of addresses, into the first cache: up to 1.4 times as fast as in
    /// rows.
    Zen5,
}

/// The processor that this is most like.
#[cfg(target_arch = "x86_64")]
pub fn processor() -> Processor {
    const ZEN_3_AND_4: u32 = 0x19;
    const ZEN_5: u32 = 0x1a;
    static PROCESSOR: std::sync::OnceLock<Processor> = std::sync::OnceLock::new();
    *PROCESSOR.get_or_init(|| {
        let (maker, version) = (std::arch::x86_64::__cpuid(0), std::arch::x86_64::__cpuid(1).eax);
        let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
        let amd = [maker.ebx, maker.edx, maker.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD";
        match (amd, family) {
            (true, ZEN_5..) => Processor::Zen5,
            (true, ZEN_3_AND_4) => Processor::Zen4,
            _ => Processor::Intel,
        }
    })
}

/// Whether the machine has AMX for bytes and the system grants its registers, which it does on request, for all threads.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn has_amx() -> bool {
    /// `ARCH_REQ_XCOMP_PERM` of arch_prctl(2), and the number of the tiles' state.
    const REQUEST: (libc::c_ulong, libc::c_ulong) = (0x1023, 18);
    static HAS: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *HAS.get_or_init(|| {
        // Leaf 7, EDX: AMX-TILE and AMX-INT8.
        let bits = std::arch::x86_64::__cpuid_count(7, 0).edx;
        // SAFETY: a system call that changes nothing but what this process may use.
        bits & (1 << 24) != 0
            && bits & (1 << 25) != 0
            && unsafe { libc::syscall(libc::SYS_arch_prctl, REQUEST.0, REQUEST.1) } == 0
    })
}

#[cfg(all(target_arch = "x86_64", not(target_os = "linux")))]
const fn has_amx() -> bool {
    false
}
