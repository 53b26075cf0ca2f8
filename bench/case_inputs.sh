# Inputs of bench.cases that the folder of case scripts does not make: bash case_inputs.sh OUT, with CASES set to it.
. "$CASES/_lib.sh"
# A selfie camera's display matrix, which mirrors: the stored frames are mirrored, and transposed.
ff -i "$SRC" $X264 -c:a aac plain.mp4
ff -i "$SRC" -vf hflip $X264 -c:a aac mirrored.mp4
ff -i "$SRC" -vf transpose=0 $X264 -c:a aac transposed.mp4
"$PY" - <<'P'
from pathlib import Path
from bench.video_variants import ONE, set_display_matrix
set_display_matrix(Path("mirrored.mp4"), (-ONE, 0, 0, 0, ONE, 0, 360 * ONE, 0, 1 << 30))
set_display_matrix(Path("transposed.mp4"), (0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30))
P
# A subtitle at ten hours.
printf '1\n10:00:00,000 --> 10:00:01,000\nthe end\n' > late.srt
ff -i plain.mp4 -i late.srt -c:v copy -c:a copy -c:s srt ten_hours.mkv
# The camera comes nearer between two takes of known words.
ff -i "$SRC" -i "${SRC2:-$SHARED/grid/clips/s1_bwaa2p.mpg}" -filter_complex "[0:v]scale=360:288,pad=720:576:40:40:0x606060,setsar=1[a];[1:v]scale=720:576,setsar=1[b];[a][b]concat" -c:v libx264 -qp 0 -preset veryfast -pix_fmt yuv420p -an nearer.mp4
# A small face in HD, and a mouth whose frames run at 1 ms by their header.
ff -i "$FACE" -t 2 -vf "scale=250:250,pad=1920:1080:1150:350:0x606a70" -r 25 -c:v libx264 -crf 12 -preset veryfast -pix_fmt yuv420p -an hd_250.mp4
"$PY" "$CASES/recorder_webm.py" "$FACE" browser.webm
# A photograph as phones store it: HEIC of 512-pixel tiles, upright and turned by irot; and EXIF's fifth orientation.
ff -i "$FACE" -frames:v 1 face.png
"$PY" - <<'P'
import numpy as np
from PIL import Image
from bench.heif_files import make_heif_grid
image = Image.open("face.png").convert("RGB").resize((1400, 1400))
bgr = np.ascontiguousarray(np.asarray(image)[..., ::-1])
open("grid.heic", "wb").write(make_heif_grid(bgr, 512))
open("grid_turned.heic", "wb").write(make_heif_grid(np.ascontiguousarray(np.rot90(bgr, -1)), 512, quarter_turns=1))
image.resize((700, 700)).save("upright.png")
stored = Image.open("face.png").convert("RGB").transpose(Image.Transpose.TRANSPOSE)
exif = Image.Exif()
exif[0x112] = 5
for suffix in ("jpg", "png", "webp"):
    stored.save(f"o5.{suffix}", quality=95, exif=exif)
P
# A face, a flash at 1.00 s and a click at the same moment; the audio starts at 0.8 s. And a second of audio missing before the flash.
F='[0:v]drawbox=c=white:t=fill:enable=between(t\,0.99\,1.03)[v]'
for e in "mp4 libx264 aac" "mkv libx264 libopus" "webm libvpx libopus"; do set -- $e
  ff -i "$SRC" -itsoffset 0.8 -f lavfi -i "aevalsrc='if(between(t,0.2,0.22),0.9*sin(6283*t),0)':s=48000:d=2.2" -filter_complex "$F" -map "[v]" -map 1:a -c:v $2 -b:v 4M -pix_fmt yuv420p -c:a $3 late_click.$1
  ff -i "$SRC" -f lavfi -i "aevalsrc='if(between(t,2,2.02),0.9*sin(6283*t),0.05*sin(2000*t))':s=48000:d=3" -filter_complex "${F//0.99*1.03/1.99\\,2.03}" -map "[v]" -map 1:a -af "aselect='not(between(t,0.5,1.5))'" -c:v $2 -b:v 4M -pix_fmt yuv420p -c:a $3 gap_click.$1
done
# HDR videos of known words.
HDR_FROM="$SRC" bash "$CASES/hdr.sh" hdr_words
# Voices of 16 kHz for live clients, and of a second for stills.
ff -i "$VOICE" -t 3 -ac 1 -ar 16000 live.wav
ff -i "$VOICE" -t 1.2 -ac 1 -ar 24000 second.wav
ff -i "$VOICE" -ss 0.5 -t 0.01 -ac 1 -ar 48000 -af aresample=48000 ms10.wav
ff -i "$VOICE" -t 5 -ac 1 -ar 24000 long.wav
# Raw AAC whose first 5 s are quiet: its length is guessed from its bit rate. The rest is 80 s of speech.
ff -f lavfi -i anullsrc=r=44100:cl=mono:d=5 -i "$VOICE" -filter_complex "[1]aresample=44100,aformat=channel_layouts=mono,aloop=loop=20:size=2e6,atrim=0:80[s];[0][s]concat=n=2:v=0:a=1" -c:a aac -q:a 2 quiet_start.aac
