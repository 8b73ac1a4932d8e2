"""Trainings as published, one module for each system's papers, and one of ours; a dict of all of them by name."""

from __future__ import annotations

from collections.abc import Callable

from pixelwise.errors import RequestError, closest
from pixelwise.recipes import (
    crfrnn,
    deconvnet,
    deeplab,
    deeplabv3,
    dilation,
    drn,
    drn_imagenet,
    fcn,
    fusionnet,
    gcn,
    modern,
    pspnet,
    segnet,
)
from pixelwise.recipes.recipe import Recipe, Stage

__all__ = ["RECIPES", "Recipe", "Stage", "find_recipe"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    recipe.__name__: recipe
    for recipe in (
        modern.modern,
        fcn.fcn32s,
        fcn.fcn8s_staged,
        fcn.fcn8s_atonce,
        fcn.fcn8s_cvpr,
        fcn.fcn_alexnet,
        crfrnn.crfrnn,
        crfrnn.crfrnn_staged,
        deconvnet.deconvnet,
        segnet.segnet,
        segnet.segnet_basic,
        segnet.bayesian_segnet,
        segnet.bayesian_segnet_basic,
        dilation.dilated_frontend,
        dilation.dilation8_voc,
        dilation.dilation8_camvid,
        dilation.dilation7_kitti,
        dilation.dilation10_cityscapes,
        deeplab.deeplabv1,
        deeplab.deeplabv1_largefov,
        deeplab.deeplabv1_msc_largefov,
        deeplab.deeplabv2_largefov,
        deeplab.deeplabv2_aspp_s,
        deeplab.deeplabv2_aspp_l,
        deeplab.deeplabv2_resnet101,
        deeplab.deeplabv2_resnet101_largefov,
        deeplabv3.deeplabv3_resnet50,
        deeplabv3.deeplabv3_resnet101,
        deeplabv3.deeplabv3_cascade_resnet101,
        pspnet.pspnet50_ade20k,
        pspnet.pspnet101_voc,
        pspnet.pspnet101_cityscapes,
        pspnet.pspnet50_ade20k_paper,
        gcn.gcn_voc,
        gcn.gcn_cityscapes,
        fusionnet.fusionnet,
        drn_imagenet.drn_a_18,
        drn_imagenet.drn_a_34,
        drn_imagenet.drn_a_50,
        drn_imagenet.drn_b_26,
        drn_imagenet.drn_c_26,
        drn_imagenet.drn_c_42,
        drn_imagenet.drn_c_58,
        drn_imagenet.drn_d_22,
        drn_imagenet.drn_d_38,
        drn_imagenet.drn_d_54,
        drn_imagenet.drn_d_105,
        drn.drnseg_a_50,
        drn.drnseg_c_26,
        drn.drnseg_c_42,
        drn.drnseg_d_22,
        drn.drnseg_d_38,
        drn.drnseg_d_105,
    )
}


def find_recipe(name: str) -> Recipe:
    """Return a recipe by its name; an unknown one is answered with the closest names and all of them."""
    if name not in RECIPES:
        raise RequestError(
            f"unknown recipe {name!r}; closest: {closest(name, RECIPES)}.\nAccepted: {', '.join(RECIPES)}."
        )
    return RECIPES[name]()
