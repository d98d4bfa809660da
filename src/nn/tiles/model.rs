//! A software model of the tile instructions, after the definitions in Intel's manual (Intel 64 and IA-32
//! Architectures Software Developer's Manual, volume 2).

use super::{ConfiguredTiles, LINE, ROWS, STRIDE, TILE, TileNumbers, TileProduct};

/// The rows of a tile, each in numbers of 32 bits.
type Rows = [[u32; LINE]; ROWS];

/// The tiles of a thread and their configuration.
pub(super) struct Model {
    tiles: [Rows; 8],
    /// Rows of each tile.
    rows: [usize; 8],
    /// Numbers of 32 bits in a row of each.
    columns: [usize; 8],
}

impl Model {
    /// `ldtilecfg`: all tiles become zero.
    ///
    /// # Panics
    /// Where the instruction faults: when the palette is not 1, a reserved byte is set or a tile is too large.
    pub(super) fn configure(bytes: &[u8; 64]) -> Self {
        assert_eq!(bytes[0], 1, "the palette");
        assert!(bytes[2..16].iter().chain(&bytes[32..48]).chain(&bytes[56..]).all(|&byte| byte == 0));
        let rows = std::array::from_fn(|tile| usize::from(bytes[48 + tile]));
        let columns = std::array::from_fn(|tile| {
            let row = usize::from(u16::from_le_bytes([bytes[16 + 2 * tile], bytes[17 + 2 * tile]]));
            assert!(row <= STRIDE && row.is_multiple_of(4), "bytes per row of tile {tile}");
            row / 4
        });
        assert!(rows.iter().all(|&rows| rows <= ROWS));
        Self { tiles: [[[0; LINE]; ROWS]; 8], rows, columns }
    }

    fn tilezero(&mut self, tile: usize) {
        self.tiles[tile] = [[0; LINE]; ROWS];
    }

    /// Rows lie `stride` bytes apart.
    ///
    /// # Safety
    /// All rows must be readable.
    unsafe fn tileloadd(&mut self, tile: usize, from: *const f32, stride: usize) {
        self.tilezero(tile);
        for (row, to) in self.tiles[tile].iter_mut().enumerate().take(self.rows[tile]) {
            let columns = self.columns[tile];
            // SAFETY: the row is readable, says the caller, and has at most as many numbers as the tile.
            unsafe {
                let from = from.byte_add(row * stride).cast::<u32>();
                to.as_mut_ptr().copy_from(from, columns);
            }
        }
    }

    /// Rows lie `stride` bytes apart.
    ///
    /// # Safety
    /// All rows must be writable.
    unsafe fn tilestored(&self, to: *mut f32, stride: usize, tile: usize) {
        for (row, from) in self.tiles[tile].iter().enumerate().take(self.rows[tile]) {
            // SAFETY: the row is writable, says the caller.
            unsafe { to.byte_add(row * stride).cast::<u32>().copy_from(from.as_ptr(), self.columns[tile]) };
        }
    }

    /// `sums += a b`.
    ///
    /// # Panics
    /// Where the instruction faults: when two of the tiles are the same, or their sizes do not fit each other.
    fn tdpbf16ps(&mut self, sums: usize, a: usize, b: usize) {
        let size = self.check(sums, a, b);
        let (left, right) = (self.tiles[a], self.tiles[b]);
        let sums = &mut self.tiles[sums];
        #[cfg(target_arch = "x86_64")]
        {
            // One instruction for a multiply-add instead of a function that may be called.
            #[target_feature(enable = "fma")]
            fn with_fma(sums: &mut Rows, left: &Rows, right: &Rows, size: [usize; 3]) {
                add_products(sums, left, right, size);
            }
            if is_x86_feature_detected!("fma") {
                // SAFETY: as just checked.
                return unsafe { with_fma(sums, &left, &right, size) };
            }
        }
        add_products(sums, &left, &right, size);
    }

    /// `sums += a b` for signed integers of 8 bits.
    ///
    /// # Panics
    /// As for [`tdpbf16ps`](Self::tdpbf16ps).
    fn tdpbssd(&mut self, sums: usize, a: usize, b: usize) {
        let size = self.check(sums, a, b);
        let (left, right) = (self.tiles[a], self.tiles[b]);
        add_products_of_bytes(&mut self.tiles[sums], &left, &right, size);
    }

    /// Rows and columns of the sums, and the steps that are added up.
    fn check(&self, sums: usize, a: usize, b: usize) -> [usize; 3] {
        assert!(sums != a && sums != b && a != b);
        let size = [self.rows[sums], self.columns[sums], self.columns[a]];
        assert_eq!(size, [self.rows[a], self.columns[b], self.rows[b]]);
        size
    }
}

/// The four products of bytes that lie in the same 32 bits are added, one k after the other.
fn add_products_of_bytes(sums: &mut Rows, left: &Rows, right: &Rows, [rows, columns, fours]: [usize; 3]) {
    let bytes = |four: u32| four.to_le_bytes().map(|byte| i32::from(byte.cast_signed()));
    for (left, sums) in left.iter().zip(sums).take(rows) {
        for (left, right) in left.iter().zip(right).take(fours) {
            for (sum, right) in sums.iter_mut().zip(right).take(columns) {
                let products = bytes(*left).into_iter().zip(bytes(*right)).map(|(a, b)| a * b);
                *sum = sum.wrapping_add_signed(products.sum());
            }
        }
        sums[columns..].fill(0);
    }
}

/// The products of first numbers of pairs are added up, and those of second numbers, one k after the other and
/// with one rounding for each. Both sums are added to each other, then to what was there.
#[inline(always)]
fn add_products(sums: &mut Rows, left: &Rows, right: &Rows, [rows, columns, pairs]: [usize; 3]) {
    let right = right.map(|row| row.map(halves));
    for (left, sums) in left.iter().zip(sums).take(rows) {
        let mut parts = [[0.0_f32; 2]; LINE];
        for (left, right) in left.iter().zip(&right).take(pairs) {
            let [first, second] = halves(*left);
            for (part, right) in parts.iter_mut().zip(right).take(columns) {
                part[0] = flushed(first.mul_add(right[0], part[0]));
                part[1] = flushed(second.mul_add(right[1], part[1]));
            }
        }
        for (sum, part) in sums.iter_mut().zip(parts).take(columns) {
            let before = flushed(f32::from_bits(*sum));
            *sum = flushed(before + flushed(part[0] + part[1])).to_bits();
        }
        sums[columns..].fill(0);
    }
}

/// Both numbers of a pair in bfloat16, the first of which is the lower one.
#[inline(always)]
fn halves(pair: u32) -> [f32; 2] {
    [pair << 16, pair & 0xffff_0000].map(|bits| flushed(f32::from_bits(bits)))
}

/// The instruction takes numbers with less than full precision for zero, and gives zero for them.
#[inline(always)]
fn flushed(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0.0_f32.copysign(x) } else { x }
}

/// The instructions in the order of the kernels for the hardware.
impl ConfiguredTiles for Model {
    unsafe fn multiply(&mut self, product: &TileProduct<'_>) {
        let &TileProduct { numbers, left, offsets, right, right_step, sums, add } = product;
        let multiply_add = match numbers {
            TileNumbers::Bf16 => Self::tdpbf16ps,
            TileNumbers::Int8 => Self::tdpbssd,
        };
        assert!(matches!(left.len(), 1 | 2));
        debug_assert!(product.is_aligned());
        // SAFETY: the caller's.
        unsafe {
            for tile in 0..2 * left.len() {
                match add {
                    true => self.tileloadd(tile, sums.add(tile * TILE), STRIDE),
                    false => self.tilezero(tile),
                }
            }
            for (i, &offset) in offsets.iter().enumerate() {
                for (n, right) in right.iter().enumerate() {
                    self.tileloadd(6 + n, right.add(i * right_step), STRIDE);
                }
                for (m, left) in left.iter().enumerate() {
                    self.tileloadd(4 + m, left.add(offset), STRIDE);
                    multiply_add(self, 2 * m, 4 + m, 6);
                    multiply_add(self, 2 * m + 1, 4 + m, 7);
                }
            }
            for tile in 0..2 * left.len() {
                self.tilestored(sums.add(tile * TILE), STRIDE, tile);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use half::bf16;

    use super::*;

    /// A configuration of tiles 0 (sums), 1 (A) and 2 (B) for `rows` x 2 `pairs` and 2 `pairs` x `columns`.
    fn model(rows: u8, pairs: u8, columns: u8) -> Model {
        let mut bytes = [0; 64];
        bytes[0] = 1;
        for (tile, [rows, columns]) in
            [[rows, columns], [rows, pairs], [pairs, columns]].into_iter().enumerate()
        {
            (bytes[48 + tile], bytes[16 + 2 * tile]) = (rows, 4 * columns);
        }
        Model::configure(&bytes)
    }

    fn pair(first: f32, second: f32) -> u32 {
        let [low, high] = [first, second].map(|x| u32::from(bf16::from_f32(x).to_bits()));
        high << 16 | low
    }

    /// One sum after a product of one row and one column: `before` and the pairs of both sides.
    fn sum(before: f32, pairs: &[[u32; 2]]) -> f32 {
        let mut model = model(1, pairs.len() as u8, 1);
        model.tiles[0][0][0] = before.to_bits();
        for (k, &[left, right]) in pairs.iter().enumerate() {
            (model.tiles[1][0][k], model.tiles[2][k][0]) = (left, right);
        }
        model.tdpbf16ps(0, 1, 2);
        f32::from_bits(model.tiles[0][0][0])
    }

    #[test]
    fn sums_are_added_in_the_order_of_the_definition() {
        let one = pair(1.0, 1.0);
        assert_eq!(sum(0.5, &[[pair(1.5, -2.0), pair(4.0, 0.25)]]), 6.0);
        // First and second numbers are added up on their own: the large ones cancel out before a small one comes.
        let tiny = f32::EPSILON / 2.0;
        assert_eq!(sum(0.0, &[[pair(1.0, tiny), one], [pair(-1.0, tiny), one]]), 2.0 * tiny);
        // One k comes after the other: here the small one is lost in the large one.
        assert_eq!(sum(0.0, &[[pair(1.0, 0.0), one], [pair(tiny, 0.0), one], [pair(-1.0, 0.0), one]]), 0.0);
        // What was there comes last: the small sums are not lost in it one by one.
        assert_eq!(sum(1.0, &[[pair(tiny, tiny), one]]), 1.0 + f32::EPSILON);
        assert_eq!(sum(1.0, &[[pair(tiny, 0.0), one]]), 1.0, "half way to the next number: to the even one");
        assert_eq!(sum(1.0 + f32::EPSILON, &[[pair(tiny, 0.0), one]]), 1.0 + 2.0 * f32::EPSILON);
    }

    #[test]
    fn a_product_is_not_rounded_before_it_is_added() {
        // 2^128 does not fit into f32, half of it does.
        let large = 2.0_f32.powi(64);
        let products = [[pair(-large, 0.0), pair(large / 2.0, 0.0)], [pair(large, 0.0), pair(large, 0.0)]];
        assert_eq!(sum(0.0, &products), 2.0_f32.powi(127));
    }

    #[test]
    fn numbers_of_less_than_full_precision_are_zero() {
        let (least, one) = (f32::MIN_POSITIVE, pair(1.0, 1.0));
        assert_eq!(sum(0.0, &[[pair(least, 0.0), one]]), least);
        assert_eq!(sum(0.0, &[[pair(least / 2.0, 0.0), pair(2.0, 0.0)]]), 0.0, "on the left");
        assert_eq!(sum(0.0, &[[pair(2.0, 0.0), pair(least / 2.0, 0.0)]]), 0.0, "on the right");
        assert_eq!(sum(least / 2.0, &[[pair(least, 0.0), one]]), least, "before");
        assert_eq!(sum(0.0, &[[pair(least, 0.0), pair(0.5, 0.0)]]), 0.0, "after");
        let zero = sum(-0.0, &[[pair(-least, -0.0), pair(0.5, 1.0)]]);
        assert_eq!(zero.to_bits(), 0, "sums begin at the positive zero");
    }

    #[test]
    fn bytes_are_signed_and_sums_of_their_products_wrap_around() {
        let mut model = model(1, 2, 1);
        model.tiles[0][0][0] = i32::MAX.cast_unsigned();
        model.tiles[1][0][..2]
            .copy_from_slice(&[[1, 0xff, 0x80, 0], [2, 0, 0, 0x7f]].map(u32::from_le_bytes));
        (model.tiles[2][0][0], model.tiles[2][1][0]) =
            (u32::from_le_bytes([3, 0x80, 0x80, 9]), u32::from_le_bytes([0xfe, 9, 9, 0x7f]));
        model.tdpbssd(0, 1, 2);
        let products = 3 + 128 + 128 * 128 - 4 + 127 * 127;
        assert_eq!(model.tiles[0][0][0], i32::MAX.wrapping_add(products).cast_unsigned());
    }

    #[test]
    fn tiles_smaller_than_the_largest_are_zero_beyond_their_size() {
        let mut model = model(3, 2, 5);
        let numbers: Vec<f32> = (0..64).map(|i| f32::from_bits(pair(i as f32, 1.0))).collect();
        // SAFETY: three rows of two numbers and two of five, 32 bytes apart.
        unsafe {
            model.tileloadd(1, numbers.as_ptr(), 32);
            model.tileloadd(2, numbers.as_ptr(), 32);
        }
        assert_eq!(
            model.tiles[1][2],
            std::array::from_fn(|i| if i < 2 { numbers[16 + i].to_bits() } else { 0 })
        );
        assert_eq!(model.tiles[1][3], [0; LINE]);
        model.tdpbf16ps(0, 1, 2);
        let mut sums = [7.0; 32];
        // SAFETY: three rows of five numbers, 32 bytes apart.
        unsafe { model.tilestored(sums.as_mut_ptr(), 32, 0) };
        for (i, sum) in sums.into_iter().enumerate() {
            let (m, n) = (i / 8, i % 8);
            let product = |k: usize| ((8 * m + k) * (8 * k + n) + 1) as f32;
            let wanted = if m < 3 && n < 5 { product(0) + product(1) } else { 7.0 };
            assert_eq!(sum, wanted, "{m} {n}");
        }
    }

    #[test]
    fn what_the_instructions_refuse_is_refused() {
        let refused = |bytes: [u8; 64]| std::panic::catch_unwind(|| Model::configure(&bytes)).is_err();
        let good = super::super::WHOLE_TILES.0;
        assert!(!refused(good));
        for (byte, value) in [(0, 0), (0, 2), (2, 1), (15, 1), (16, 68), (17, 1), (32, 1), (48, 17), (63, 1)]
        {
            let mut bytes = good;
            bytes[byte] = value;
            assert!(refused(bytes), "{byte}");
        }
        for tiles in [[0, 0, 1], [1, 0, 1], [0, 1, 1], [0, 2, 1]] {
            let product = || model(3, 2, 5).tdpbf16ps(tiles[0], tiles[1], tiles[2]);
            assert!(std::panic::catch_unwind(product).is_err(), "{tiles:?}");
        }
    }
}
