// Writes dlib's face recogniser (dlib_face_recognition_resnet_model_v1.dat, CC0) as XML, so that convert.py can read its numbers.
// Build: g++ -O1 -std=c++14 -DDLIB_NO_GUI_SUPPORT export.cpp -o export -ldlib -lblas -llapack   (Debian: libdlib-dev)
// The type below is the network's shape, which dlib needs to read the file: 29 convolutions, King 2017.

#include <dlib/dnn.h>

using namespace dlib;

template <int N, int stride, typename BELOW>
using Block = affine<con<N, 3, 3, 1, 1, relu<affine<con<N, 3, 3, stride, stride, BELOW>>>>>;
template <int N, typename BELOW>
using Same = relu<add_prev1<Block<N, 1, tag1<BELOW>>>>;
template <int N, typename BELOW>
using Halved = relu<add_prev2<avg_pool<2, 2, 2, 2, skip1<tag2<Block<N, 2, tag1<BELOW>>>>>>>;

template <typename BELOW> using At35 = Same<32, Same<32, Same<32, BELOW>>>;
template <typename BELOW> using At17 = Same<64, Same<64, Same<64, Halved<64, BELOW>>>>;
template <typename BELOW> using At8 = Same<128, Same<128, Halved<128, BELOW>>>;
template <typename BELOW> using At4 = Same<256, Same<256, Halved<256, BELOW>>>;
template <typename BELOW> using At2 = Halved<256, BELOW>;

using Network = loss_metric<fc_no_bias<
    128, avg_pool_everything<At2<At4<At8<At17<At35<
             max_pool<3, 3, 2, 2, relu<affine<con<32, 7, 7, 2, 2, input_rgb_image_sized<150>>>>>>>>>>>>>;

int main(int count, char** arguments) {
    if (count != 3) {
        std::cerr << "usage: export MODEL.dat OUT.xml\n";
        return 2;
    }
    Network network;
    deserialize(arguments[1]) >> network;
    net_to_xml(network, std::string(arguments[2]));
    return 0;
}
