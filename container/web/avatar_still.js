// The first frame of an avatar, on its canvas until a session draws there.
//
//     await showStill(api, name, canvas, isWanted)   isWanted(): asked once the frame is here, -> whether to draw it
//
// Returns whether it was drawn. An avatar without it, as a server that does not answer, leaves the canvas as it is: the
// session that is started next reports what is wrong.

export async function showStill(api, name, canvas, isWanted) {
  let image;
  try {
    image = await createImageBitmap(await api.blob(`v1/avatars/${encodeURIComponent(name)}/background/0`));
  } catch {
    return false;
  }
  const isDrawn = isWanted();
  if (isDrawn) {
    Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext("2d").drawImage(image, 0, 0);
  }
  image.close();
  return isDrawn;
}
