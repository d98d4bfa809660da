//! Products of small matrices in bfloat16 or 8-bit integers, by a unit of the CPU (Intel AMX) or by its software model.
//!
//! A tile is a register of 16 rows of 64 bytes. One instruction adds to 16 x 16 sums in f32 the product of 16 x 32
//! and 32 x 16 numbers in bfloat16:
//!
//! C\[m\]\[n\] += sum over k < 16 of A\[m\]\[2k\] B\[2k\]\[n\] + A\[m\]\[2k+1\] B\[2k+1\]\[n\]
//!
//! Row k of the tile for B holds B\[2k\]\[n\] and B\[2k+1\]\[n\] side by side, for one n after the other. With 8-bit integers,
//! A has 64 columns, and row k of the tile for B holds four rows of B. The sums are integers of 32 bits then. There are eight
//! tiles. [`ConfiguredTiles::multiply`] keeps four of sums, two for A and two for B, so that four products share four loads.

#[cfg(target_arch = "x86_64")]
mod amx;
mod model;

use super::Isa;

/// Rows of a tile.
pub(crate) const ROWS: usize = 16;

/// Numbers of f32, or pairs of bfloat16, in a row of a tile.
pub(crate) const LINE: usize = 16;

/// The same in a whole tile.
pub(crate) const TILE: usize = ROWS * LINE;

/// Bytes from one row of a tile to the next, wherever tiles lie in memory.
const STRIDE: usize = LINE * size_of::<f32>();

/// Memory of the type that `ldtilecfg` reads.
#[repr(align(64))]
struct Configuration([u8; 64]);

/// All eight tiles with all their rows and columns: palette 1, bytes per row from byte 16 on, two for each tile, and
/// rows from byte 48 on.
static WHOLE_TILES: Configuration = {
    let mut bytes = [0; 64];
    bytes[0] = 1;
    let mut tile = 0;
    while tile < 8 {
        bytes[16 + 2 * tile] = STRIDE as u8;
        bytes[48 + tile] = ROWS as u8;
        tile += 1;
    }
    Configuration(bytes)
};

/// What the numbers in tiles are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileNumbers {
    /// bfloat16, with sums in f32.
    Bf16,
    /// Integers of 8 bits, with sums of 32 bits, which wrap around.
    Int8,
}

impl TileNumbers {
    /// How many are in a row of a tile.
    pub(crate) const fn per_line(self) -> usize {
        match self {
            Self::Bf16 => 2 * LINE,
            Self::Int8 => 4 * LINE,
        }
    }
}

/// What multiplies tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TileUnit {
    /// The unit of this CPU.
    #[cfg(target_arch = "x86_64")]
    Amx,
    /// Software that does the same, slowly: for tests on machines without the unit.
    #[cfg_attr(not(test), allow(dead_code))]
    Model,
}

impl TileUnit {
    /// The unit of this machine, if the CPU has it and the operating system lets this process use it. It goes with
    /// AVX-512 code alone, which every CPU with the unit has. The system is asked once, at the first call.
    pub(crate) fn of_this_machine(isa: Isa) -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 && amx::is_available() {
            return Some(Self::Amx);
        }
        let _ = isa;
        None
    }

    /// Configures the unit for the calling thread, lets `work` use it, and releases it. Tiles in use make every
    /// switch to another thread slower, so they are not kept longer than the work takes.
    ///
    /// # Panics
    /// When this machine does not have the unit.
    pub(crate) fn run(self, work: &mut dyn FnMut(&mut dyn ConfiguredTiles)) {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amx => {
                assert!(amx::is_available(), "this machine has no AMX");
                // SAFETY: as just checked.
                work(&mut unsafe { amx::Amx::configure() });
            }
            Self::Model => work(&mut model::Model::configure(&WHOLE_TILES.0)),
        }
    }
}

/// One or two tiles for A, each with several products to be added up, times two tiles for B.
pub(crate) struct TileProduct<'a> {
    /// What is multiplied. Pointers and distances count numbers of 32 bits all the same, as the sums are.
    pub(crate) numbers: TileNumbers,
    /// Where the rows of each tile for A lie, before an offset is added: one or two places, rows [`LINE`] numbers apart.
    pub(crate) left: &'a [*const f32],
    /// How many numbers further the rows for each product lie.
    pub(crate) offsets: &'a [usize],
    /// The two tiles for B of the first product.
    pub(crate) right: [*const f32; 2],
    /// How many numbers further those for each further product lie.
    pub(crate) right_step: usize,
    /// The sums: two tiles for each one for A.
    pub(crate) sums: *mut f32,
    /// Whether the products are added to the sums that are there.
    pub(crate) add: bool,
}

impl TileProduct<'_> {
    /// Whether all rows of tiles are whole cache lines: those that straddle two take twice as long.
    fn is_aligned(&self) -> bool {
        let aligned = |at: *const f32| at.addr().is_multiple_of(STRIDE);
        let mut rows = self.left.iter().copied().chain(self.right).chain([self.sums.cast_const()]);
        let mut steps = self.offsets.iter().chain([&self.right_step]);
        rows.all(aligned) && steps.all(|step| step.is_multiple_of(LINE))
    }
}

/// Tiles that are configured for this thread.
pub(crate) trait ConfiguredTiles {
    /// Adds up the products in the order of their offsets and writes the sums.
    ///
    /// # Safety
    /// For every place on the left and every offset a tile must be readable, as must all tiles on the right. The sums
    /// must be writable, and readable if products are added to them.
    unsafe fn multiply(&mut self, product: &TileProduct<'_>);
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;
    use crate::nn::Buffer;

    /// A small generator (xorshift64*), the same on every machine.
    fn random(seed: u64) -> impl FnMut() -> f32 {
        let mut state = seed;
        move || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
            bits as f32 / (1 << 23) as f32 - 1.0
        }
    }

    /// A list of random pairs of bfloat16, and the numbers in it.
    fn pairs(len: usize, seed: u64) -> (Buffer, Vec<f64>) {
        let (mut next, mut buffer) = (random(seed), Buffer::new(len));
        let numbers: Vec<bf16> = (0..2 * len).map(|_| bf16::from_f32(next())).collect();
        for (pair, halves) in buffer.iter_mut().zip(numbers.as_chunks::<2>().0) {
            let [low, high] = halves.map(|half| u32::from(half.to_bits()));
            *pair = f32::from_bits(high << 16 | low);
        }
        (buffer, numbers.into_iter().map(f64::from).collect())
    }

    /// Tiles for A and products.
    const CASES: [(usize, usize); 6] = [(1, 1), (2, 1), (1, 3), (2, 5), (1, 0), (2, 0)];

    /// What is in memory before the sums.
    const BEFORE: f32 = 7.0;

    /// Sums of one or two tiles for A, several products each.
    fn multiply(
        (unit, numbers): (TileUnit, TileNumbers),
        tiles: usize,
        products: usize,
        add: bool,
    ) -> Vec<f32> {
        let (left, _) = pairs(2 * TILE + products * LINE, 3);
        let (right, _) = pairs(2 * TILE * (products + 1), 5);
        let places = [left.as_ptr(), left[TILE..].as_ptr()];
        let offsets: Vec<usize> = (0..products).map(|i| i * LINE).collect();
        let mut sums = Buffer::new(2 * TILE * tiles);
        sums.fill(BEFORE);
        unit.run(&mut |unit| {
            let product = TileProduct {
                numbers,
                left: &places[..tiles],
                offsets: &offsets,
                right: [right.as_ptr(), right[TILE..].as_ptr()],
                right_step: 2 * TILE,
                sums: sums.as_mut_ptr(),
                add,
            };
            // SAFETY: as many tiles are there: those on the left end with `left` at the last offset.
            unsafe { unit.multiply(&product) };
        });
        sums.to_vec()
    }

    #[test]
    fn products_of_tiles_are_those_of_matrices() {
        for (add, (tiles, products)) in
            [false, true].into_iter().flat_map(|add| CASES.map(|case| (add, case)))
        {
            let (_, left) = pairs(2 * TILE + products * LINE, 3);
            let (_, right) = pairs(2 * TILE * (products + 1), 5);
            let found = multiply((TileUnit::Model, TileNumbers::Bf16), tiles, products, add);
            for (i, &found) in found.iter().enumerate() {
                let (tile, column, row, n) = (i / TILE / 2, i / TILE % 2, i / LINE % ROWS, i % LINE);
                let mut wanted = if add { f64::from(BEFORE) } else { 0.0 };
                for (product, k) in (0..products).flat_map(|p| (0..2 * LINE).map(move |k| (p, k))) {
                    let a = left[2 * (tile * TILE + (row + product) * LINE) + k];
                    let b = right[2 * ((2 * product + column) * TILE + k / 2 * LINE + n) + k % 2];
                    wanted += a * b;
                }
                assert!(
                    (f64::from(found) - wanted).abs() < 1e-5,
                    "{tiles} {products} {add} {i}: {found} {wanted}"
                );
            }
        }
    }

    #[test]
    fn products_of_tiles_of_bytes_are_those_of_matrices() {
        let bytes = |numbers: &[f32]| -> Vec<i32> {
            numbers
                .iter()
                .flat_map(|x| x.to_bits().to_le_bytes())
                .map(|x| i32::from(x.cast_signed()))
                .collect()
        };
        for (add, (tiles, products)) in
            [false, true].into_iter().flat_map(|add| CASES.map(|case| (add, case)))
        {
            let left = bytes(&pairs(2 * TILE + products * LINE, 3).0);
            let right = bytes(&pairs(2 * TILE * (products + 1), 5).0);
            let found = multiply((TileUnit::Model, TileNumbers::Int8), tiles, products, add);
            for (i, &found) in found.iter().enumerate() {
                let (tile, column, row, n) = (i / TILE / 2, i / TILE % 2, i / LINE % ROWS, i % LINE);
                let mut wanted = if add { BEFORE.to_bits().cast_signed() } else { 0 };
                for (product, k) in (0..products).flat_map(|p| (0..4 * LINE).map(move |k| (p, k))) {
                    let a = left[4 * (tile * TILE + (row + product) * LINE) + k];
                    let b = right[4 * ((2 * product + column) * TILE + k / 4 * LINE + n) + k % 4];
                    wanted += a * b;
                }
                assert_eq!(found.to_bits().cast_signed(), wanted, "{tiles} {products} {add} {i}");
            }
        }
    }

    #[test]
    fn the_unit_of_this_machine_does_bit_for_bit_what_its_model_does() {
        let Some(unit) = TileUnit::of_this_machine(Isa::best()) else {
            return println!("skipped: this machine has no AMX, or the system does not grant it");
        };
        for (tiles, products) in [(1, 1), (2, 1), (1, 12), (2, 13), (1, 0), (2, 0)] {
            for (numbers, add) in
                [TileNumbers::Bf16, TileNumbers::Int8].into_iter().flat_map(|one| [(one, false), (one, true)])
            {
                let bits = |unit| -> Vec<u32> {
                    multiply((unit, numbers), tiles, products, add).into_iter().map(f32::to_bits).collect()
                };
                assert_eq!(bits(unit), bits(TileUnit::Model), "{numbers:?} {tiles} {products} {add}");
            }
        }
    }
}
