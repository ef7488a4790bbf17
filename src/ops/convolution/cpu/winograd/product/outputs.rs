//! The last part of a product: transforming the products of tiles into the pixels of the target.

use super::super::super::blocks::Block;
use super::super::super::tile::Panel;
use super::super::pitch;
use super::super::transforms::Grid;
use super::Call;

impl Call<'_> {
    /// Transforms a block's products, which are those from `first` on among `total` tiles, into its target.
    pub(super) fn finish(
        &self,
        panel: &Panel,
        block: &Block,
        (products, total, first): (&[f32], usize, usize),
        target: &mut [f32],
    ) {
        let tiles = self.tiles(block);
        let point = pitch(total * panel.padded);
        let grid = Grid { row: self.size.side() * point, column: point };
        for tile in 0..tiles.count(block) {
            let (image, y, x) = (
                tile / (tiles.rows * tiles.columns),
                tile / tiles.columns % tiles.rows,
                tile % tiles.columns,
            );
            let from = (&products[(first + tile) * panel.padded..], grid);
            self.write(panel, block, [image, y * self.size.outputs(), x * self.size.outputs()], from, target);
        }
    }

    /// Transforms a tile's products into the target pixels from (y, x) of an image of the block.
    fn write(
        &self,
        panel: &Panel,
        block: &Block,
        [image, y, x]: [usize; 3],
        from: (&[f32], Grid),
        target: &mut [f32],
    ) {
        let [_, width, channels] = self.geometry.target;
        let columns = panel.width;
        let rows_left = block.rows.len() - y;
        let at = ((image * block.rows.len() + y) * width + x) * channels + panel.first;
        let pixels = Grid { row: width * channels, column: channels };
        if !self.accumulate && rows_left >= self.size.outputs() && width - x >= self.size.outputs() {
            self.size.transform_output()(self.simd, columns, from, (&mut target[at..], pixels));
            return;
        }
        let mut values = [0.0f32; 16 * 48];
        let own = Grid { row: self.size.outputs() * columns, column: columns };
        self.size.transform_output()(self.simd, columns, from, (&mut values, own));
        for row in 0..self.size.outputs().min(rows_left) {
            for column in 0..self.size.outputs().min(width - x) {
                let values = &values[(row * self.size.outputs() + column) * columns..][..columns];
                let target = &mut target[at + row * pixels.row + column * pixels.column..][..columns];
                if self.accumulate {
                    target.iter_mut().zip(values).for_each(|(target, value)| *target += value);
                } else {
                    target.copy_from_slice(values);
                }
            }
        }
    }
}
