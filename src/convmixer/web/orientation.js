"use strict";

// Of EXIF's orientation browsers do this and that: they turn every JPEG and PNG, and cannot be asked not to since "none"
// has left the standard; a WebP they turn or not. So they get the picture without that note, and who draws it turns it.

/** {blob, orientation}: a picture file of which browsers know no orientation, and the one it has, 1 (upright) to 8. */
async function withoutOrientation(file) {
  const view = new DataView(await file.arrayBuffer());
  let orientation = 1;
  try {
    let exif = null;
    if (view.getUint16(0) === 0xffd8) exif = hideInJpeg(view);
    else if (text(view, 1) === "PNG\r") exif = hideInPng(view);
    else if (text(view, 0) === "RIFF" && text(view, 8) === "WEBP") exif = hideInWebp(view);
    if (exif !== null) orientation = orientationIn(view, exif);
  } catch (error) {
    if (!(error instanceof RangeError)) throw error; // it ends too early: the decoder knows what to say of that
  }
  return { blob: new Blob([view.buffer], { type: file.type }), orientation };
}

function text(view, at) {
  return String.fromCharCode(...[0, 1, 2, 3].map((offset) => view.getUint8(at + offset)));
}

// Each hides the note from decoders without moving a byte, and returns where its TIFF header begins, or null.

function hideInJpeg(view) {
  for (let at = 2; view.getUint8(at) === 0xff; ) {
    const marker = view.getUint8(at + 1);
    if (marker === 0xda) break; // the pixels begin
    if (marker === 0xff) {
      at += 1; // a fill byte
      continue;
    }
    if (marker === 0xe1 && text(view, at + 4) === "Exif") {
      view.setUint8(at + 1, 0xef); // APP15, which nobody reads
      return at + 10;
    }
    at += 2 + view.getUint16(at + 2);
  }
  return null;
}

function hideInPng(view) {
  for (let at = 8; text(view, at + 4) !== "IEND"; at += 12 + view.getUint32(at))
    if (text(view, at + 4) === "eXIf") {
      const length = view.getUint32(at);
      view.setUint8(at + 5, 0x78); // exIf: a private chunk, with a checksum that fits its name
      view.setUint32(at + 8 + length, crc32(new Uint8Array(view.buffer, at + 4, length + 4)));
      return at + 8;
    }
  return null;
}

function hideInWebp(view) {
  for (let at = 12; at < view.byteLength; ) {
    const length = view.getUint32(at + 4, true);
    if (text(view, at) === "EXIF") {
      view.setUint8(at, 0x78);
      return text(view, at + 8) === "Exif" ? at + 14 : at + 8;
    }
    at += 8 + length + (length % 2);
  }
  return null;
}

/** The tag 0x0112 of the first directory of a TIFF header that begins at `tiff`. */
function orientationIn(view, tiff) {
  const little = view.getUint16(tiff) === 0x4949;
  const directory = tiff + view.getUint32(tiff + 4, little);
  const count = view.getUint16(directory, little);
  for (let entry = directory + 2; entry < directory + 2 + 12 * count; entry += 12)
    if (view.getUint16(entry, little) === 0x0112) {
      const value = view.getUint16(entry + 8, little);
      return value >= 1 && value <= 8 ? value : 1;
    }
  return 1;
}

/** The checksum of PNG's chunks. */
function crc32(bytes) {
  let crc = -1;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = (crc >>> 1) ^ (crc & 1 ? 0xedb88320 : 0);
  }
  return ~crc >>> 0;
}

// What a canvas does to a picture of w x h pixels to turn it upright, by its orientation.
const UPRIGHT = {
  1: () => [1, 0, 0, 1, 0, 0],
  2: (w) => [-1, 0, 0, 1, w, 0],
  3: (w, h) => [-1, 0, 0, -1, w, h],
  4: (w, h) => [1, 0, 0, -1, 0, h],
  5: () => [0, 1, 1, 0, 0, 0],
  6: (w, h) => [0, 1, -1, 0, h, 0],
  7: (w, h) => [0, -1, -1, 0, h, w],
  8: (w) => [0, -1, 1, 0, 0, w],
};
