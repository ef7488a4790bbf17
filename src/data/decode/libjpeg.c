/*
 * The part of libjpeg that jpeg.rs uses, as functions that return 1 or, with a message, 0.
 *
 * libjpeg reports an error by a call that must not return. Here that call is a longjmp back into the function
 * below that was called from Rust, so that only C frames are jumped over. Every function sets its own jump
 * first.
 */
#include <math.h>
#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JPEG_INTERNALS
#include <jpeglib.h>
#include <jerror.h>

/* A file with more scans only costs time: 64 coefficients of 4 components, each refined once, make 512. */
#define MAX_SCANS 512

struct records_jpeg {
  struct jpeg_decompress_struct decompress;
  struct jpeg_error_mgr errors;
  struct jpeg_progress_mgr progress;
  /* libjpeg's inverse transform of each component, called by checked_transform. */
  inverse_DCT_method_ptr transforms[MAX_COMPONENTS];
  double cosines[DCTSIZE][DCTSIZE];
  jmp_buf failed;
  char message[JMSG_LENGTH_MAX];
};

/* The header; jpeg.rs declares the same structure. */
struct records_jpeg_header {
  uint32_t width, height, components;
  /* 1 or 0. */
  uint32_t progressive, arithmetic;
  /* Blocks of 8x8 coefficients in the scans. */
  uint64_t blocks;
  /* Bytes for decoding besides the file and the pixels: coefficients of several scans, rows between stages. */
  uint64_t working_bytes;
};

static struct records_jpeg *owner(j_common_ptr common) { return (struct records_jpeg *)common; }

static void fail(j_common_ptr common) {
  struct records_jpeg *jpeg = owner(common);
  jpeg->errors.format_message(common, jpeg->message);
  longjmp(jpeg->failed, 1);
}

static void fail_with(struct records_jpeg *jpeg, const char *message) {
  snprintf(jpeg->message, sizeof jpeg->message, "%s", message);
  longjmp(jpeg->failed, 1);
}

/*
 * After a warning libjpeg goes on with invented data, so it is an error here. The warnings below lose no pixel
 * and are common in files that every program reads.
 */
static void warn(j_common_ptr common, int level) {
  if (level >= 0) return;
  switch (common->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_BOGUS_PROGRESSION:
    case JWRN_EXTRANEOUS_DATA:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL:
      return;
    default:
      fail(common);
  }
}

static void print_nothing(j_common_ptr common) { (void)common; }

static void count_scans(j_common_ptr common) {
  if (((j_decompress_ptr)common)->input_scan_number > MAX_SCANS) fail_with(owner(common), "more than 512 scans");
}

void records_jpeg_close(struct records_jpeg *jpeg) {
  jpeg_destroy_decompress(&jpeg->decompress);
  free(jpeg);
}

static int create(struct records_jpeg *jpeg, const uint8_t *bytes, size_t length) {
  if (setjmp(jpeg->failed)) return 0;
  jpeg_create_decompress(&jpeg->decompress);
  jpeg->decompress.progress = &jpeg->progress;
  jpeg_mem_src(&jpeg->decompress, bytes, (unsigned long)length);
  return 1;
}

/*
 * Samples are -128 to 127 before they are shifted. Any quantisation keeps them within about 400; beyond 511
 * libjpeg wraps around in C and saturates in assembler. Only damaged data whose codes happen to be valid gets
 * there.
 */
#define LARGEST_SAMPLE 511.0

/* Whether a sample of the block exceeds the largest. Coefficients are in rows, still quantised. */
static int is_impossible(const struct records_jpeg *jpeg, JCOEFPTR coefficients, const UINT16 *quantisers) {
  double values[DCTSIZE2], columns[DCTSIZE2], sum = 0.0;
  for (int k = 0; k < DCTSIZE2; k++) {
    values[k] = (double)coefficients[k] * quantisers[k];
    sum += fabs(values[k]);
  }
  /* No coefficient contributes more than a quarter of itself to a sample. */
  if (sum / 4 <= LARGEST_SAMPLE) return 0;
  for (int y = 0; y < DCTSIZE; y++) {
    for (int u = 0; u < DCTSIZE; u++) {
      columns[y * DCTSIZE + u] = 0.0;
      for (int v = 0; v < DCTSIZE; v++) columns[y * DCTSIZE + u] += jpeg->cosines[v][y] * values[v * DCTSIZE + u];
    }
  }
  for (int y = 0; y < DCTSIZE; y++) {
    for (int x = 0; x < DCTSIZE; x++) {
      double sample = 0.0;
      for (int u = 0; u < DCTSIZE; u++) sample += jpeg->cosines[u][x] * columns[y * DCTSIZE + u];
      if (fabs(sample) > LARGEST_SAMPLE) return 1;
    }
  }
  return 0;
}

static void checked_transform(j_decompress_ptr d, jpeg_component_info *component, JCOEFPTR coefficients, JSAMPARRAY rows,
                              JDIMENSION column) {
  struct records_jpeg *jpeg = owner((j_common_ptr)d);
  if (is_impossible(jpeg, coefficients, component->quant_table->quantval)) {
    fail_with(jpeg, "damaged data: a block of impossible brightness");
  }
  jpeg->transforms[component->component_index](d, component, coefficients, rows, column);
}

/* Installs checked_transform before libjpeg's own transforms. */
static void check_transforms(struct records_jpeg *jpeg) {
  const double pi = 3.14159265358979323846;
  for (int u = 0; u < DCTSIZE; u++) {
    for (int x = 0; x < DCTSIZE; x++) jpeg->cosines[u][x] = (u == 0 ? sqrt(0.125) : 0.5) * cos((2 * x + 1) * u * pi / 16);
  }
  for (int i = 0; i < jpeg->decompress.num_components; i++) {
    jpeg->transforms[i] = jpeg->decompress.idct->inverse_DCT[i];
    jpeg->decompress.idct->inverse_DCT[i] = checked_transform;
  }
}

/* Returns NULL if there is no memory. `bytes` must outlive the result. */
struct records_jpeg *records_jpeg_open(const uint8_t *bytes, size_t length) {
  struct records_jpeg *jpeg = calloc(1, sizeof *jpeg);
  if (jpeg == NULL) return NULL;
  jpeg->decompress.err = jpeg_std_error(&jpeg->errors);
  jpeg->errors.error_exit = fail;
  jpeg->errors.emit_message = warn;
  jpeg->errors.output_message = print_nothing;
  jpeg->progress.progress_monitor = count_scans;
  if (create(jpeg, bytes, length)) return jpeg;
  records_jpeg_close(jpeg);
  return NULL;
}

const char *records_jpeg_message(const struct records_jpeg *jpeg) { return jpeg->message; }

static uint64_t round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

int records_jpeg_read_header(struct records_jpeg *jpeg, struct records_jpeg_header *header) {
  j_decompress_ptr d = &jpeg->decompress;
  if (setjmp(jpeg->failed)) return 0;
  jpeg_read_header(d, TRUE);
  header->width = d->image_width;
  header->height = d->image_height;
  header->components = (uint32_t)d->num_components;
  header->progressive = d->progressive_mode != 0;
  header->arithmetic = d->arith_code != 0;
  header->blocks = header->working_bytes = 0;
  for (int i = 0; i < d->num_components; i++) {
    const jpeg_component_info *c = &d->comp_info[i];
    uint64_t wide = round_up(c->width_in_blocks, (uint64_t)c->h_samp_factor);
    uint64_t high = round_up(c->height_in_blocks, (uint64_t)c->v_samp_factor);
    header->blocks += (uint64_t)c->width_in_blocks * c->height_in_blocks;
    if (jpeg_has_multiple_scans(d)) header->working_bytes += wide * high * sizeof(JBLOCK);
    /* Two groups of rows before upsampling, one after it. */
    header->working_bytes += 2 * wide * 8 * (uint64_t)c->v_samp_factor * 8;
    header->working_bytes += ((uint64_t)d->image_width + 64) * (uint64_t)d->max_v_samp_factor;
  }
  return 1;
}

/* Reads up to the first row; all scans, if there are several. `colours` is 3 for RGB or 4 for CMYK rows. */
int records_jpeg_start(struct records_jpeg *jpeg, uint32_t colours) {
  j_decompress_ptr d = &jpeg->decompress;
  if (setjmp(jpeg->failed)) return 0;
  d->out_color_space = colours == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(d);
  if (d->output_components != (int)colours) fail_with(jpeg, "unknown colours");
  /* Missing scans raise no warning: the file simply ends before them. */
  for (int i = 0; i < d->num_components; i++) {
    if (d->comp_info[i].quant_table == NULL) fail_with(jpeg, "a colour component has no scan: the file is cut short");
    for (int k = 0; d->progressive_mode && k < DCTSIZE2; k++) {
      if (d->coef_bits[i][k] != 0) fail_with(jpeg, "the last progressive scans are missing: the file is cut short");
    }
  }
  check_transforms(jpeg);
  return 1;
}

/* One row of width x colours bytes. */
int records_jpeg_read_row(struct records_jpeg *jpeg, uint8_t *row) {
  JSAMPROW rows[1] = {row};
  if (setjmp(jpeg->failed)) return 0;
  if (jpeg_read_scanlines(&jpeg->decompress, rows, 1) != 1) fail_with(jpeg, "a row is missing");
  return 1;
}

/* Reads on to the end marker. */
int records_jpeg_finish(struct records_jpeg *jpeg) {
  if (setjmp(jpeg->failed)) return 0;
  jpeg_finish_decompress(&jpeg->decompress);
  return 1;
}
