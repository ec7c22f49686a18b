/* Prints the motion vectors that FFmpeg's libraries export of a video, for tests/test_vectors.py.

   cc reference.c $(pkg-config --cflags --libs libavformat libavcodec libavutil) -o reference
   ./reference VIDEO

   "picture TYPE" for each picture in the order of showing, then a line per vector:
   source w h src_x src_y dst_x dst_y motion_x motion_y motion_scale */

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/motion_vector.h>
#include <stdio.h>
#include <stdlib.h>

static void check(int failed, const char *what) {
  if (failed) {
    fprintf(stderr, "cannot %s\n", what);
    exit(1);
  }
}

static void print_pictures(AVCodecContext *decoder, AVFrame *frame) {
  while (avcodec_receive_frame(decoder, frame) == 0) {
    AVFrameSideData *data = av_frame_get_side_data(frame, AV_FRAME_DATA_MOTION_VECTORS);
    printf("picture %c\n", av_get_picture_type_char(frame->pict_type));
    for (size_t i = 0; data && i < data->size / sizeof(AVMotionVector); i++) {
      AVMotionVector *v = (AVMotionVector *)data->data + i;
      printf("%d %d %d %d %d %d %d %d %d %d\n", v->source, v->w, v->h, v->src_x, v->src_y,
             v->dst_x, v->dst_y, v->motion_x, v->motion_y, v->motion_scale);
    }
  }
}

int main(int count, char **arguments) {
  AVFormatContext *file = NULL;
  AVDictionary *options = NULL;
  AVPacket *packet = av_packet_alloc();
  AVFrame *frame = av_frame_alloc();
  const AVCodec *codec;
  check(count != 2, "do anything without one video");
  check(avformat_open_input(&file, arguments[1], NULL, NULL) < 0, "open the video");
  check(avformat_find_stream_info(file, NULL) < 0, "find its streams");
  int stream = av_find_best_stream(file, AVMEDIA_TYPE_VIDEO, -1, -1, &codec, 0);
  check(stream < 0, "find a decoder");
  AVCodecContext *decoder = avcodec_alloc_context3(codec);
  avcodec_parameters_to_context(decoder, file->streams[stream]->codecpar);
  av_dict_set(&options, "flags2", "+export_mvs", 0);
  check(avcodec_open2(decoder, codec, &options) < 0, "open the decoder");
  while (av_read_frame(file, packet) >= 0) {
    if (packet->stream_index == stream) {
      check(avcodec_send_packet(decoder, packet) < 0, "decode a packet");
      print_pictures(decoder, frame);
    }
    av_packet_unref(packet);
  }
  avcodec_send_packet(decoder, NULL);
  print_pictures(decoder, frame);
  return 0;
}
