//! A column of a Parquet file, checked before decoding, because the crate panics on wrong sizes and offsets.

use parquet::basic::Encoding;
use parquet::column::page::{Page, PageMetadata, PageReader};
use parquet::column::reader::{ColumnReaderImpl, get_column_reader, get_typed_column_reader};
use parquet::data_type::DataType;
use parquet::errors::{ParquetError, Result};
use parquet::file::reader::RowGroupReader;

/// A reader of a column of a row group, which must be of the requested type.
///
/// # Errors
/// When the file states an impossible position.
pub(super) fn column<T: DataType>(group: &dyn RowGroupReader, number: usize) -> Result<ColumnReaderImpl<T>> {
    let told = group.metadata().column(number);
    let places =
        [told.dictionary_page_offset().unwrap_or(0), told.data_page_offset(), told.compressed_size()];
    if places.iter().any(|place| *place < 0) {
        return Err(ParquetError::General("a column lies before the file".into()));
    }
    let pages = Checked { pages: group.get_column_page_reader(number)?, has_dictionary: false };
    Ok(get_typed_column_reader(get_column_reader(told.column_descr_ptr(), Box::new(pages))))
}

/// Checks that pages refer to a dictionary only if there is one.
struct Checked {
    pages: Box<dyn PageReader>,
    has_dictionary: bool,
}

impl Iterator for Checked {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Self::Item> {
        self.get_next_page().transpose()
    }
}

impl PageReader for Checked {
    fn get_next_page(&mut self) -> Result<Option<Page>> {
        let page = self.pages.get_next_page()?;
        match &page {
            Some(Page::DictionaryPage { .. }) => self.has_dictionary = true,
            Some(page) if refers(page.encoding()) && !self.has_dictionary => {
                return Err(ParquetError::General("a column lacks its dictionary".into()));
            }
            _ => {}
        }
        Ok(page)
    }

    fn peek_next_page(&mut self) -> Result<Option<PageMetadata>> {
        self.pages.peek_next_page()
    }

    fn skip_next_page(&mut self) -> Result<()> {
        self.pages.skip_next_page()
    }
}

/// Whether values are indices into a dictionary.
#[allow(deprecated, reason = "files may hold what writers no longer write")]
fn refers(encoding: Encoding) -> bool {
    matches!(encoding, Encoding::RLE_DICTIONARY | Encoding::PLAIN_DICTIONARY)
}
