//! A canvas as plotters draws on it. Its own has no text without the fonts of the machine.

use std::convert::Infallible;

use plotters_backend::text_anchor::{HPos, VPos};
use plotters_backend::{
    BackendColor, BackendCoord, BackendTextStyle, DrawingBackend, DrawingErrorKind,
};

use super::canvas::{Canvas, Style};

/// plotters' sizes of text are of a whole line, in ems.
const LINE: f64 = 1.24;

pub struct Bitmap<'a>(pub &'a mut Canvas);

type Drawn<T = ()> = Result<T, DrawingErrorKind<Infallible>>;

impl DrawingBackend for Bitmap<'_> {
    type ErrorType = Infallible;

    fn get_size(&self) -> (u32, u32) {
        (self.0.image.width as u32, self.0.image.height as u32)
    }

    fn ensure_prepared(&mut self) -> Drawn {
        Ok(())
    }

    fn present(&mut self) -> Drawn {
        Ok(())
    }

    fn draw_pixel(&mut self, (x, y): BackendCoord, color: BackendColor) -> Drawn {
        let (red, green, blue) = color.rgb;
        self.0.blend(x, y, [red, green, blue], color.alpha as f32);
        Ok(())
    }

    /// Where the SVG has it.
    fn draw_text<T: BackendTextStyle>(
        &mut self,
        text: &str,
        style: &T,
        (x, y): BackendCoord,
    ) -> Drawn {
        let own = of(style);
        let width = own.width(text) as i32;
        let left = match style.anchor().h_pos {
            HPos::Left => 0,
            HPos::Center => -width / 2,
            HPos::Right => -width,
        };
        let down = match style.anchor().v_pos {
            VPos::Top => 0.76,
            VPos::Center => 0.27,
            VPos::Bottom => -0.27,
        };
        let baseline = (down * own.size).round() as i32;
        let BackendColor { alpha, rgb: (red, green, blue) } = style.color();
        own.pixels(text, |dx, dy, share| {
            let (dx, dy) = style.transform().transform(left + dx, baseline + dy);
            self.0.blend(x + dx, y + dy, [red, green, blue], alpha as f32 * share);
        });
        Ok(())
    }

    fn estimate_text_size<T: BackendTextStyle>(&self, text: &str, style: &T) -> Drawn<(u32, u32)> {
        Ok((of(style).width(text) as u32, of(style).size as u32))
    }
}

fn of(style: &impl BackendTextStyle) -> Style {
    Style { size: (style.size() / LINE) as f32, ink: 0 }
}
